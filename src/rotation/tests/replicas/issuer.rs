//! The model issuer: it always asks for the longest token, at the first and at the last moment at which it can get one.
//!
//! In scope: when a node may sign with which key, and the tokens that leave at the ends of each such time: accepted just before the node
//! learns that the key stopped (or its lease lapses), and released a whole deadline later. Out of scope: policy, and signatures.

use super::*;

impl World<'_> {
    /// Looks again at who may sign on this node, and lets tokens leave where that has changed.
    pub(super) fn watch_signers(&mut self, node: usize) {
        for ring in 0..RINGS.len() {
            let now = self.may_sign(node, ring);
            let before = self.nodes[node].signing[ring].clone();
            if now == before {
                continue;
            }
            if let Some((kid, life, deadline)) = before {
                self.release(node, ring, &kid, deadline, life);
            }
            if let Some((kid, life, _)) = &now {
                self.release(node, ring, kid, Duration::ZERO, *life);
            }
            self.nodes[node].signing[ring] = now;
        }
    }

    /// A token at the last moment before the node's clock is stepped, or the process dies: it leaves at once or never.
    pub(super) fn last_tokens(&mut self, node: usize) {
        for ring in 0..RINGS.len() {
            if let Some((kid, life, _)) = self.nodes[node].signing[ring].take() {
                self.release(node, ring, &kid, Duration::ZERO, life);
            }
        }
    }

    /// I2, I7 and I12: the key is active in the node's newest snapshot, its lease holds and its clock is not in doubt.
    fn may_sign(&self, node: usize, ring: usize) -> Option<(String, Duration, Duration)> {
        let this = &self.nodes[node];
        let keyring = this.keyrings.keyring(RINGS[ring])?;
        let timing = &keyring.timing()?.timing;
        let leased = self.nodes.len() == 1
            || (!self.machine.is_stepped(&self.readings(node), SKEW) && self.machine.may_sign(this.lease, self.monotonic(), timing));
        let recorded = this.keyrings.last_time().max(this.last_use);
        if !this.alive || !leased || self.wall(node) + SKEW < recorded {
            return None;
        }
        let kid = self.machine.signer(keyring)?.kid.clone()?;
        Some((kid, self.machine.token_life(timing), self.machine.deadline(timing)))
    }

    fn release(&mut self, node: usize, ring: usize, kid: &str, deadline: Duration, life: Duration) {
        let (released, wall) = (self.now + deadline, self.wall(node) + deadline);
        // `exp` is whole seconds, rounded down; a verifier may be half of e behind the true time, and accepts before `exp` only.
        let exp = Timestamp::from_millis((wall + life).millis() / 1000 * 1000);
        let dies = exp + SKEW / 2 - MILLISECOND - SLACK;
        self.nodes[node].last_use = self.nodes[node].last_use.max(wall);
        self.tokens.push(Token { ring, kid: kid.to_owned(), released, dies });
    }
}
