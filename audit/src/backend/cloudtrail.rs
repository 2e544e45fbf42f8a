//! CloudTrail's log files, as a trail delivers them to a bucket.
//!
//! In scope: `{"Records": [...]}`, streamed, an event at a time; events of AWS KMS. Out of scope: gzip, and the digest chain, which
//! `aws cloudtrail validate-logs` checks; events of AWS KMS that are no management events. The forms are those of the AWS documentation: "CloudTrail record contents" for the members of all
//! events, "Sign", "CreateKey", "CreateAlias" and "TagResource" under "Logging AWS KMS API calls" for those of AWS KMS.

use std::fmt;
use std::io::{self, BufRead, Read as _};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::loose::{List, Object, Text};
use super::{Entry, Key, Read, Signature, What, caller, invalid};
use crate::names::KeyName;
use crate::time::Timestamp;

/// Most bytes of an unpacked file. CloudTrail delivers every few minutes, some megabytes at a time.
pub const MAX_FILE: u64 = 256 << 20;

const KMS: &str = "kms.amazonaws.com";

/// Reads one file and calls `each` with every event.
///
/// # Errors
///
/// It could not be read, is no CloudTrail file, or has more than [`MAX_FILE`] bytes.
pub fn read(reader: &mut dyn BufRead, each: &mut dyn FnMut(Entry)) -> io::Result<Read> {
    let mut bounded = reader.take(MAX_FILE + 1);
    let mut file = File { each, number: 0, has_records: false, is_digest: false };
    let parsed = {
        let mut json = serde_json::Deserializer::from_reader(&mut bounded);
        json.deserialize_map(&mut file).and_then(|()| json.end())
    };
    if bounded.limit() == 0 {
        return Err(invalid(format!("the file has more than {MAX_FILE} bytes, unpacked; CloudTrail delivers no such files")));
    }
    match parsed {
        Err(error) if error.is_io() => Err(error.into()),
        Err(error) => Err(invalid(format!("the file is none of CloudTrail: {error}"))),
        Ok(()) if !file.has_records && !file.is_digest => {
            Err(invalid("the file is none of CloudTrail: it has no `Records`; give the files that a trail delivers to its bucket"))
        }
        Ok(()) => Ok(Read { torn: 0, is_digest: file.is_digest }),
    }
}

struct File<'f> {
    each: &'f mut dyn FnMut(Entry),
    number: u64,
    has_records: bool,
    is_digest: bool,
}

impl<'de> Visitor<'de> for &mut File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `Records`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            match name.as_str() {
                "Records" => {
                    self.has_records = true;
                    map.next_value_seed(Records(self))?;
                }
                other => {
                    self.is_digest |= other == "digestStartTime";
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The list of events, of which one at a time is held.
struct Records<'r, 'f>(&'r mut File<'f>);

impl<'de> DeserializeSeed<'de> for Records<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(file) = self;
        while let Some(Object(event)) = seq.next_element::<Object<Event>>()? {
            file.number += 1;
            let Some(time) = Timestamp::from_rfc3339(&event.time.0) else {
                return Err(A::Error::custom(format_args!("event {} has no `eventTime`", file.number)));
            };
            let scope = format!("{}/{}", event.account.0, event.region.0);
            (file.each)(Entry { number: file.number, time, scope, what: event.what() });
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    #[serde(rename = "eventSource")]
    source: Text,
    #[serde(rename = "eventName")]
    action: Text,
    #[serde(rename = "eventTime")]
    time: Text,
    #[serde(rename = "awsRegion")]
    region: Text,
    #[serde(rename = "recipientAccountId")]
    account: Text,
    #[serde(rename = "requestID")]
    request: Text,
    #[serde(rename = "eventCategory")]
    category: Text,
    error_code: Text,
    #[serde(rename = "sourceIPAddress")]
    address: Text,
    user_identity: Object<Identity>,
    request_parameters: Object<Parameters>,
    response_elements: Object<Answer>,
    resources: List<Object<Resource>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Identity {
    arn: Text,
    invoked_by: Text,
    principal_id: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Parameters {
    key_id: Text,
    target_key_id: Text,
    alias_name: Text,
    tags: List<Object<Tag>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Tag {
    tag_value: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    key_metadata: Object<Metadata>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    key_id: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    #[serde(rename = "type")]
    kind: Text,
    #[serde(rename = "ARN")]
    arn: Text,
}

impl Event {
    fn what(self) -> What {
        // The same call may stand in a network activity event too, and an insight counts calls: neither is one more.
        if self.source.0 != KMS || !matches!(self.category.0.as_str(), "" | "Management") {
            return What::Other;
        }
        // A call that was refused has a code, and made nothing; so has a dry run, which is answered with an error.
        let refused = !self.error_code.0.is_empty();
        match (self.action.0.as_str(), refused) {
            ("Sign", true) => What::Refused,
            ("Sign", false) => What::Signature(self.signature()),
            ("CreateKey" | "CreateAlias" | "UpdateAlias" | "TagResource", false) => {
                self.name().map_or(What::Other, |name| What::Named(self.key(), name))
            }
            _ => What::Other,
        }
    }

    fn signature(self) -> Signature {
        let key = self.key();
        let Identity { arn, invoked_by, principal_id } = self.user_identity.0;
        let who = [arn.0, invoked_by.0, principal_id.0].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        Signature { request: self.request.0, key, caller: caller(&who, &self.address.0), several: false }
    }

    /// The ARN of the resource, or what the request named.
    fn key(&self) -> Key {
        let resource =
            self.resources.0.iter().find(|Object(resource)| resource.kind.0 == "AWS::KMS::Key" || resource.arn.0.contains(":key/"));
        let Parameters { key_id, target_key_id, .. } = &self.request_parameters.0;
        let made = &self.response_elements.0.key_metadata.0.key_id;
        let arn = resource.map(|Object(resource)| &resource.arn);
        let names = arn.into_iter().chain([target_key_id, key_id, made]);
        Key::Kms(names.map(|Text(text)| text.as_str()).find(|text| !text.is_empty()).unwrap_or("unknown").to_owned())
    }

    /// The name that Claviger gave to the key: in a tag, or in an alias, where `/` or `_` may stand for the dots, which KMS does not allow there.
    fn name(&self) -> Option<KeyName> {
        let Parameters { alias_name, tags, .. } = &self.request_parameters.0;
        let alias = alias_name.0.strip_prefix("alias/").map(|alias| alias.replace(['/', '_'], "."));
        let mut names = tags.0.iter().map(|Object(Tag { tag_value })| tag_value.0.clone()).chain(alias);
        names.find_map(|name| name.parse().ok())
    }
}
