//! A calm daemon: what tests wait for that compare one look at a set with a later one.

use crate::harness::{Daemon, until};

/// Waits until each of these keyrings has its standby in its set; nothing changes after that but by the clock or by an operator.
pub(crate) fn settle(daemon: &mut Daemon, keyrings: &[&str]) {
    let mut client = daemon.anonymous();
    for keyring in keyrings {
        until("a standby in the set", || {
            let set = client.try_get(&format!("/keyrings/{keyring}/jwks.json"))?;
            let keys = if set.status == 200 { set.json()["keys"].as_array().map_or(0, Vec::len) } else { 0 };
            if keys == 2 { Ok(()) } else { Err(set.text()) }
        });
    }
}
