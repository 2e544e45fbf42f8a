//! Whether the cosignatures of a checkpoint reach the quorum of a trust file (C2SP tlog-policy, "Defining the quorum"), and since when.
//!
//! In scope: counting signatures that were verified already. Out of scope: verifying them (`note`), and how old is too old.

use crate::note::VerifiedSignatures;
use crate::time::Timestamp;

use super::{Member, Policy, Witness};

/// A checkpoint that is witnessed as the trust file demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Until when the quorum vouches that this was the newest checkpoint: the latest time such that cosignatures of that time or later
    /// reach the quorum. `None` for `quorum none`, where nobody vouches for a time.
    pub time: Option<Timestamp>,
    /// Every witness of the file that cosigned, whether the quorum needs it or not, in the order of the file.
    pub cosigners: Vec<Cosigner>,
}

/// A witness that cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigner {
    /// What the trust file calls it.
    pub name: String,
    /// When it says that it cosigned, in whole seconds; the latest, where it did so twice.
    pub time: Timestamp,
}

/// Too few witnesses cosigned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the quorum {quorum:?} of the trust file is not reached; cosigned by {}, not by {}", listed(.cosigned), listed(.missing))]
pub struct MissingQuorum {
    /// What the trust file calls the witness or group that must have witnessed.
    pub quorum: String,
    /// The witnesses that cosigned, of those that count towards the quorum.
    pub cosigned: Vec<String>,
    /// The witnesses that count towards the quorum and did not cosign; not all of them may be needed.
    pub missing: Vec<String>,
}

impl Policy {
    /// Whether `signatures`, of one checkpoint, reach the quorum. Names of keys do not count, keys do: a witness that is listed with
    /// another key has not cosigned.
    ///
    /// # Errors
    ///
    /// [`MissingQuorum`], which names the witnesses that are missing.
    pub fn quorum_met(&self, signatures: &VerifiedSignatures) -> Result<Witnessed, MissingQuorum> {
        let times: Vec<Option<Timestamp>> = self.witnesses().iter().map(|witness| time_of(witness, signatures)).collect();
        let cosigners = self
            .witnesses()
            .iter()
            .zip(&times)
            .filter_map(|(witness, time)| time.map(|time| Cosigner { name: witness.name.clone(), time }));
        let cosigners = cosigners.collect();
        let Some(quorum) = self.quorum() else { return Ok(Witnessed { time: None, cosigners }) };
        match self.witnessed_since(quorum, &times) {
            Some(time) => Ok(Witnessed { time: Some(time), cosigners }),
            None => Err(self.missing(quorum, &times)),
        }
    }

    /// The latest time at or after which enough members of `member` cosigned. Groups refer only to groups before them, so this ends.
    fn witnessed_since(&self, member: Member, times: &[Option<Timestamp>]) -> Option<Timestamp> {
        match member {
            Member::Witness(index) => times.get(index).copied().flatten(),
            Member::Group(index) => {
                let group = self.groups().get(index)?;
                let mut since: Vec<Timestamp> = group.members.iter().filter_map(|member| self.witnessed_since(*member, times)).collect();
                since.sort_unstable_by(|one, other| other.cmp(one));
                // The file's reader has seen that the threshold is at least 1.
                since.get(group.threshold.checked_sub(1)?).copied()
            }
        }
    }

    fn missing(&self, quorum: Member, times: &[Option<Timestamp>]) -> MissingQuorum {
        let mut counting = Vec::new();
        self.witnesses_below(quorum, &mut counting);
        let (cosigned, missing): (Vec<usize>, Vec<usize>) =
            counting.into_iter().partition(|index| times.get(*index).copied().flatten().is_some());
        let names = |indices: Vec<usize>| indices.into_iter().filter_map(|index| Some(self.witnesses().get(index)?.name.clone())).collect();
        MissingQuorum { quorum: self.name_of(quorum), cosigned: names(cosigned), missing: names(missing) }
    }

    fn witnesses_below(&self, member: Member, found: &mut Vec<usize>) {
        match member {
            Member::Witness(index) => found.push(index),
            Member::Group(index) => {
                let members = self.groups().get(index).map(|group| group.members.as_slice()).unwrap_or_default();
                for member in members {
                    self.witnesses_below(*member, found);
                }
            }
        }
    }

    fn name_of(&self, member: Member) -> String {
        let name = match member {
            Member::Witness(index) => self.witnesses().get(index).map(|witness| &witness.name),
            Member::Group(index) => self.groups().get(index).map(|group| &group.name),
        };
        name.cloned().unwrap_or_default()
    }
}

/// C2SP tlog-cosignature: a time must not exceed 2^63 - 1; a cosignature that states a later one does not count.
fn time_of(witness: &Witness, signatures: &VerifiedSignatures) -> Option<Timestamp> {
    let own = signatures.iter().filter(|signature| signature.key == witness.key);
    own.filter_map(|signature| i64::try_from(signature.time?).ok()).max().map(Timestamp::from_seconds)
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;
    use crate::note::{Note, VerifierKey};
    use crate::trust::tests::{log_key, witness_key};

    const TEXT: &str = "log.example\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    /// A checkpoint by the log, cosigned by witnesses `w<seed>` at the times given.
    fn signatures(cosigned: &[(u8, u64)]) -> VerifiedSignatures {
        use base64::Engine as _;
        let line = |key: &str, bytes: &[u8]| {
            let key: VerifierKey = key.parse().unwrap();
            let bytes = [key.id().as_bytes(), bytes].concat();
            format!("\u{2014} {} {}\n", key.name(), base64::engine::general_purpose::STANDARD.encode(bytes))
        };
        let secret = |seed: u8| SigningKey::from_bytes(&[seed; 32]);
        let mut note = format!("{TEXT}\n{}", line(&log_key("log.example", 1), &secret(1).sign(TEXT.as_bytes()).to_bytes()));
        let mut keys: Vec<VerifierKey> = vec![log_key("log.example", 1).parse().unwrap()];
        for (seed, time) in cosigned {
            let key = witness_key(&format!("w{seed}.example"), *seed);
            let signature = secret(*seed).sign(format!("cosignature/v1\ntime {time}\n{TEXT}").as_bytes()).to_bytes();
            note += &line(&key, &[time.to_be_bytes().as_slice(), &signature].concat());
            keys.push(key.parse().unwrap());
        }
        Note::parse(note.as_bytes()).unwrap().verify(&keys).unwrap()
    }

    /// A trust file with the witnesses w2 to w7, and these lines.
    fn policy(lines: &str) -> Policy {
        let witness = |seed: u8| format!("witness w{seed} {}\n", witness_key(&format!("w{seed}.example"), seed));
        let witnesses = (2..8).map(witness).collect::<Vec<_>>().concat();
        format!("log {}\n{witnesses}{lines}\n", log_key("log.example", 1)).parse().unwrap()
    }

    /// The example of the specification: two of the first three, and one of the others.
    const NESTED: &str = "group X 2 w2 w3 w4\ngroup Y any w5 w6 w7\ngroup X-and-Y all X Y\nquorum X-and-Y";

    fn since(lines: &str, cosigned: &[(u8, u64)]) -> Option<i64> {
        policy(lines).quorum_met(&signatures(cosigned)).ok().map(|witnessed| witnessed.time.unwrap().seconds())
    }

    #[test]
    fn no_quorum_asks_for_nobody() {
        let witnessed = policy("quorum none").quorum_met(&signatures(&[])).unwrap();
        assert_eq!(witnessed, Witnessed { time: None, cosigners: Vec::new() });
        let witnessed = policy("quorum none").quorum_met(&signatures(&[(3, 30)])).unwrap();
        let cosigner = Cosigner { name: "w3".into(), time: Timestamp::from_seconds(30) };
        assert_eq!(witnessed, Witnessed { time: None, cosigners: vec![cosigner] });
    }

    #[test]
    fn one_witness() {
        assert_eq!(since("quorum w3", &[(3, 30), (4, 40)]), Some(30));
        assert_eq!(since("quorum w3", &[(3, 30), (3, 35), (3, 32)]), Some(35), "the latest of its cosignatures");
        assert_eq!(since("quorum w3", &[(2, 20), (4, 40)]), None);
        assert_eq!(since("quorum w3", &[(3, 1 << 63)]), None, "later than any time that a cosignature may state");
        let error = policy("quorum w3").quorum_met(&signatures(&[(2, 20)])).unwrap_err();
        assert_eq!(error.to_string(), "the quorum \"w3\" of the trust file is not reached; cosigned by nobody, not by w3");
    }

    #[test]
    fn thresholds_count_members_once() {
        let two_of_three = "group g 2 w2 w3 w4\nquorum g";
        assert_eq!(since(two_of_three, &[(2, 20), (4, 40)]), Some(20));
        assert_eq!(since(two_of_three, &[(2, 20), (3, 30), (4, 40)]), Some(30), "the quorum still stands without the oldest");
        assert_eq!(since(two_of_three, &[(2, 20), (2, 21)]), None, "one witness twice is one witness");
        assert_eq!(since(two_of_three, &[(2, 20), (5, 50)]), None, "a witness outside of the group");
        assert_eq!(since("group g any w2 w3\nquorum g", &[(3, 30)]), Some(30));
        assert_eq!(since("group g all w2 w3\nquorum g", &[(3, 30)]), None);
        assert_eq!(since("group g all w2 w3\nquorum g", &[(3, 30), (2, 20)]), Some(20));
    }

    #[test]
    fn groups_of_groups() {
        assert_eq!(since(NESTED, &[(2, 20), (3, 30), (5, 25)]), Some(20));
        assert_eq!(since(NESTED, &[(2, 20), (3, 30), (4, 40), (5, 25), (6, 26)]), Some(26));
        assert_eq!(since(NESTED, &[(2, 20), (3, 30), (4, 40)]), None, "nobody of the second group");
        assert_eq!(since(NESTED, &[(2, 20), (5, 50), (6, 60), (7, 70)]), None, "one of the first group is not enough");
        let error = policy(NESTED).quorum_met(&signatures(&[(2, 20), (6, 60)])).unwrap_err();
        let text = "the quorum \"X-and-Y\" of the trust file is not reached; cosigned by w2, w6, not by w3, w4, w5, w7";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn the_same_name_with_another_key_has_not_cosigned() {
        let policy: Policy = format!("witness w {}\nquorum w\n", witness_key("w3.example", 4)).parse().unwrap();
        assert!(policy.quorum_met(&signatures(&[(3, 30)])).is_err());
    }

    proptest! {
        /// The time is right by its definition: cosignatures from then on reach the quorum, and those after it do not.
        #[test]
        fn the_time_is_the_latest_that_the_quorum_vouches_for(times in proptest::collection::vec(proptest::option::of(1_u64..20), 6)) {
            let cosigned: Vec<(u8, u64)> = (2..).zip(&times).filter_map(|(seed, time)| Some((seed, (*time)?))).collect();
            let from = |least: i64| {
                let kept: Vec<(u8, u64)> = cosigned.iter().copied().filter(|(_, time)| i64::try_from(*time).unwrap() >= least).collect();
                since(NESTED, &kept).is_some()
            };
            match since(NESTED, &cosigned) {
                Some(time) => prop_assert!(from(time) && !from(time + 1)),
                None => prop_assert!(!from(0)),
            }
        }
    }
}
