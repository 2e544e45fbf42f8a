//! What can be asked on the control socket: one JSON object in a line.
//!
//! In scope: parsing it into values that cannot be wrong. Out of scope: doing it (`perform.rs`).

use std::time::Duration;

use cryptoki_sys::{
    CK_ATTRIBUTE_TYPE, CK_OBJECT_CLASS, CK_RV, CK_SLOT_ID, CK_ULONG, CKO_CERTIFICATE, CKO_DATA, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY,
    CKO_SECRET_KEY,
};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::rules::{Effect, Objects, When};
use crate::{calls, names};

/// The longest delay: longer is a hang, which has a command of its own.
const LONGEST_DELAY: u64 = 600_000;

/// A command, as it is written.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    Fail {
        function: Function,
        code: Code,
        #[serde(default)]
        when: When,
    },
    Delay {
        function: Function,
        ms: u64,
        #[serde(default)]
        when: When,
    },
    Hang {
        function: Function,
        #[serde(default)]
        when: When,
    },
    Pace {
        function: Function,
        per_second: u32,
        #[serde(default)]
        when: When,
    },
    WrongKey {
        #[serde(default)]
        when: When,
    },
    Attribute {
        attribute: Kind,
        value: Value,
        #[serde(default)]
        of: Filter,
        #[serde(default)]
        when: When,
    },
    Hide {
        of: Filter,
        #[serde(default)]
        when: When,
    },
    Clear {
        rule: Option<u64>,
    },
    Release {
        rule: Option<u64>,
        code: Option<Code>,
    },
    DropSessions {
        slot: Option<CK_SLOT_ID>,
    },
    Logout {
        slot: Option<CK_SLOT_ID>,
    },
    Remove {
        slot: Option<CK_SLOT_ID>,
    },
    Return {
        slot: Option<CK_SLOT_ID>,
    },
    Renumber {},
    MostSessions {
        most: Option<CK_ULONG>,
        #[serde(default)]
        shown: bool,
    },
    PinCounter {
        tries: Option<u32>,
        left: Option<u32>,
    },
    Status {},
    Reset {
        #[serde(default)]
        counts: bool,
    },
}

/// A rule, ready to be put in force.
pub(crate) struct NewRule {
    pub(crate) function: Option<&'static str>,
    pub(crate) effect: Effect,
    pub(crate) when: When,
}

impl Command {
    /// The rule that the command asks for; the command itself if it asks for something else.
    pub(crate) fn into_rule(self) -> Result<Result<NewRule, Self>, String> {
        let (function, effect, when, can_perform) = match self {
            Self::Fail { function, code, when } => (function.0, Effect::Fail(code.0), when, true),
            Self::Delay { ms, .. } if ms > LONGEST_DELAY => return Err(format!("ms {ms} is more than {LONGEST_DELAY}: use hang")),
            Self::Delay { function, ms, when } => (function.0, Effect::Delay(Duration::from_millis(ms)), when, true),
            Self::Hang { function, when } => (function.0, Effect::Hang, when, true),
            Self::Pace { per_second: 0, .. } => return Err("per_second 0 would never answer: use hang".to_owned()),
            Self::Pace { function, per_second, when } => (function.0, Effect::Pace(Duration::from_secs(1) / per_second), when, false),
            Self::WrongKey { when } => (Some("C_SignInit"), Effect::WrongKey, when, false),
            Self::Attribute { attribute, value, of, when } => {
                (Some("C_GetAttributeValue"), Effect::Attribute { kind: attribute.0, value: bytes(&value)?, of: of.read()? }, when, false)
            }
            Self::Hide { of, when } => (Some("C_FindObjects"), Effect::Hide(of.read()?), when, false),
            other => return Ok(Err(other)),
        };
        when.check(can_perform)?;
        Ok(Ok(NewRule { function, effect, when }))
    }
}

/// The name of a function; `None` for `*`, which is every function.
#[derive(Debug)]
pub(crate) struct Function(Option<&'static str>);

impl<'de> Deserialize<'de> for Function {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "*" {
            return Ok(Self(None));
        }
        let known = calls::NAMES.iter().find(|known| **known == name);
        known.map(|known| Self(Some(known))).ok_or_else(|| {
            de::Error::custom(format!("{name:?} is no function of PKCS#11 v2.40 that is forwarded; write its name, such as C_Sign, or *"))
        })
    }
}

/// A return value, by name or number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code(pub(crate) CK_RV);

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        named(deserializer, names::code, "return value; write its name, such as CKR_DEVICE_ERROR, or its number").map(Self)
    }
}

/// An attribute, by name or number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind(CK_ATTRIBUTE_TYPE);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        named(deserializer, names::attribute, "attribute that is known by name; write it as CKA_LOCAL is written, or its number").map(Self)
    }
}

fn named<'de, D: Deserializer<'de>>(deserializer: D, look_up: fn(&str) -> Option<CK_ULONG>, what: &str) -> Result<CK_ULONG, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::String(name) => look_up(name),
        Value::Number(number) => number.as_u64().and_then(|number| CK_ULONG::try_from(number).ok()),
        _ => None,
    };
    number.ok_or_else(|| de::Error::custom(format!("{value} is no {what}")))
}

/// Which objects.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Filter {
    /// `CKA_ID`, in hex.
    id: Option<String>,
    /// `CKA_LABEL`.
    label: Option<String>,
    class: Option<Class>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Class {
    Data,
    Certificate,
    Public,
    Private,
    Secret,
}

impl Filter {
    fn read(self) -> Result<Objects, String> {
        let id = self.id.map(|id| unhex(&id).ok_or_else(|| format!("id {id:?} is not hex"))).transpose()?;
        let class = self.class.map(|class| -> CK_OBJECT_CLASS {
            match class {
                Class::Data => CKO_DATA,
                Class::Certificate => CKO_CERTIFICATE,
                Class::Public => CKO_PUBLIC_KEY,
                Class::Private => CKO_PRIVATE_KEY,
                Class::Secret => CKO_SECRET_KEY,
            }
        });
        Ok(Objects { id, label: self.label.map(String::into_bytes), class })
    }
}

/// The bytes of an attribute's value: a boolean, a number, or bytes in hex; `None` for null, which is an attribute that is not there.
fn bytes(value: &Value) -> Result<Option<Vec<u8>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(vec![u8::from(*value)])),
        Value::Number(number) => {
            let number = number.as_u64().and_then(|number| CK_ULONG::try_from(number).ok());
            number.map(|number| Some(number.to_ne_bytes().to_vec())).ok_or_else(|| format!("value {value} is no whole number"))
        }
        Value::String(hex) => unhex(hex).map(Some).ok_or_else(|| format!("value {hex:?} is not hex")),
        Value::Array(_) | Value::Object(_) => Err("value must be true, false, a number, bytes in hex, or null for absent".to_owned()),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(command: Value) -> Result<NewRule, String> {
        let command: Command = serde_json::from_value(command).map_err(|error| error.to_string())?;
        command.into_rule()?.map_err(|other| format!("{other:?} is no rule"))
    }

    #[test]
    fn codes_and_attributes_have_names_and_numbers() {
        for code in [json!("CKR_DEVICE_ERROR"), json!(0x30)] {
            let rule = rule(json!({ "do": "fail", "function": "C_Sign", "code": code })).unwrap();
            assert_eq!((rule.function, rule.effect), (Some("C_Sign"), Effect::Fail(0x30)));
        }
        let of = json!({ "id": "00ff", "class": "private" });
        let rule = rule(json!({ "do": "attribute", "attribute": "CKA_LOCAL", "value": false, "of": of })).unwrap();
        let of = Objects { id: Some(vec![0, 255]), label: None, class: Some(CKO_PRIVATE_KEY) };
        assert_eq!(rule.effect, Effect::Attribute { kind: 0x163, value: Some(vec![0]), of });
    }

    #[test]
    fn bad_commands_say_what_is_wrong() {
        for (command, part) in [
            (json!({ "do": "fial" }), "unknown variant `fial`"),
            (json!({ "function": "C_Sign" }), "missing field `do`"),
            (json!({ "do": "fail", "function": "C_Sing", "code": 5 }), "\"C_Sing\" is no function"),
            (json!({ "do": "fail", "function": "C_Sign", "code": "CKR_NONE" }), "\"CKR_NONE\" is no return value"),
            (json!({ "do": "fail", "function": "C_Sign" }), "missing field `code`"),
            (json!({ "do": "fail", "function": "C_Sign", "code": 5, "time": 1 }), "unknown field `time`"),
            (json!({ "do": "hang", "function": "C_Sign", "when": { "chance": 0.5 } }), "needs a seed"),
            (json!({ "do": "pace", "function": "C_Sign", "per_second": 0 }), "use hang"),
            (json!({ "do": "delay", "function": "C_Sign", "ms": 600_001 }), "use hang"),
            (json!({ "do": "attribute", "attribute": "CKA_LOCAL", "value": "x" }), "is not hex"),
            (json!({ "do": "attribute", "attribute": "CKA_LOCAL" }), "missing field `value`"),
            (json!({ "do": "hide", "of": { "id": "abc" } }), "is not hex"),
            (json!({ "do": "wrong-key", "when": { "performed": true } }), "performed has no meaning"),
        ] {
            let error = rule(command.clone()).err().unwrap_or_else(|| panic!("{command} was taken"));
            assert!(error.contains(part), "{command}: {error}");
        }
    }
}
