//! Does what a line on the control socket asks.
//!
//! In scope: from the line to the answer. Out of scope: the socket (`control.rs`).

use cryptoki_sys::{CK_SLOT_ID, CKR_OK};
use serde_json::{Value, json};

use crate::command::Command;
use crate::names::code_name;
use crate::pass::Module;
use crate::sessions::Cap;

/// The answer to one line: an object with `ok`, and with `error` where it is false.
pub(crate) fn answer(module: &Module, line: &str) -> Value {
    let outcome = serde_json::from_str::<Value>(line).map_err(|error| format!("not one JSON object: {error}")).and_then(|said| {
        let command = serde_json::from_value::<Command>(said.clone()).map_err(|error| error.to_string())?;
        perform(module, command, said)
    });
    let mut answer = outcome.unwrap_or_else(|error| json!({ "ok": false, "error": error }));
    if let Some(members) = answer.as_object_mut() {
        members.entry("ok").or_insert(json!(true));
    }
    answer
}

fn perform(module: &Module, command: Command, said: Value) -> Result<Value, String> {
    let command = match command.into_rule()? {
        Ok(rule) => return Ok(json!({ "rule": module.desk().add(rule.function, rule.effect, rule.when, said)? })),
        Err(command) => command,
    };
    match command {
        Command::Clear { rule } => clear(module, rule),
        Command::Release { rule, code } => {
            let released = module.desk().release(rule, code.map(|code| code.0));
            module.wake();
            Ok(json!({ "released": released }))
        }
        Command::DropSessions { slot } => Ok(json!({ "closed": drop_sessions(module, slot)? })),
        Command::Logout { slot } => log_out(module, slot),
        Command::Remove { slot } => {
            let closed = drop_sessions_but(module, slot, true)?;
            Ok(json!({ "closed": closed }))
        }
        Command::Return { slot } => {
            let mut desk = module.desk();
            if slot.is_some() && desk.sessions.all_are_away() {
                return Err("every token was removed, so they can only be returned together: leave out the slot".to_owned());
            }
            desk.sessions.give_back(slot);
            Ok(json!({}))
        }
        Command::Renumber {} => Ok(json!({ "renumbered": renumber(module)? })),
        Command::MostSessions { most, shown } => {
            module.desk().sessions.set_cap(most.map(|most| Cap { most, shown }));
            Ok(json!({}))
        }
        Command::PinCounter { tries, left } => pin_counter(module, tries, left),
        Command::Status {} => {
            let mut status = module.desk().describe();
            status["target"] = json!(module.target().path());
            Ok(status)
        }
        Command::Reset { counts } => {
            reset(module, counts);
            Ok(json!({}))
        }
        _ => Err("this command makes a rule".to_owned()),
    }
}

fn clear(module: &Module, rule: Option<u64>) -> Result<Value, String> {
    let cleared = module.desk().clear(rule);
    module.wake();
    match rule {
        Some(rule) if cleared == 0 => Err(format!("there is no rule {rule}")),
        _ => Ok(json!({ "cleared": cleared })),
    }
}

/// Closes all sessions in the target, of this slot or of all; the client finds out by itself.
fn drop_sessions(module: &Module, slot: Option<CK_SLOT_ID>) -> Result<u64, String> {
    drop_sessions_but(module, slot, false)
}

/// The same; if the token goes away with them, its sessions are still known, and answer that.
fn drop_sessions_but(module: &Module, slot: Option<CK_SLOT_ID>, removed: bool) -> Result<u64, String> {
    let _alone = module.alone();
    if removed {
        module.desk().sessions.remove(slot);
    }
    let counts = module.desk().sessions.counts();
    let mut closed = 0;
    for (of, count) in counts.into_iter().filter(|(of, _)| slot.is_none_or(|slot| slot == *of)) {
        let code = module.target().close_all(of);
        if code != CKR_OK {
            return Err(format!("the target's C_CloseAllSessions answered {}", code_name(code)));
        }
        if !removed {
            module.desk().sessions.closed_all(of);
        }
        closed += count;
    }
    Ok(closed)
}

fn log_out(module: &Module, slot: Option<CK_SLOT_ID>) -> Result<Value, String> {
    let _alone = module.alone();
    let sessions = module.desk().sessions.one_each(slot);
    let codes = sessions.into_values().map(|session| module.target().log_out(session)).collect::<Vec<_>>();
    let failed = codes.iter().filter(|code| **code != CKR_OK).map(|code| code_name(*code)).collect::<Vec<_>>();
    match codes.len() - failed.len() {
        0 if failed.is_empty() => Err("there is no session to log out with".to_owned()),
        0 => Err(format!("the target's C_Logout answered {}", failed.join(", "))),
        done => Ok(json!({ "logged_out": done })),
    }
}

fn renumber(module: &Module) -> Result<usize, String> {
    let _alone = module.alone();
    let sessions = module.desk().sessions.one_each(None);
    if sessions.is_empty() {
        return Err("there is no session to look at objects with".to_owned());
    }
    let mut renumbered = 0;
    for (slot, session) in sessions {
        let known = module.desk().handles.known(slot);
        let kinds = module.target().kinds(session, &known);
        renumbered += module.desk().handles.renumber(slot, &kinds);
    }
    Ok(renumbered)
}

fn pin_counter(module: &Module, tries: Option<u32>, left: Option<u32>) -> Result<Value, String> {
    let limits = match (tries, left) {
        (None, None) => None,
        (None, Some(_)) => return Err("left without tries means nothing".to_owned()),
        (Some(0), _) => return Err("tries 0 could never log in".to_owned()),
        (Some(tries), Some(left)) if left > tries => return Err(format!("left {left} is more than tries {tries}")),
        (Some(tries), left) => Some((tries, left.unwrap_or(tries))),
    };
    module.desk().pins.count(limits);
    Ok(json!({}))
}

/// Back to plain forwarding: numbers of objects stay as they are, since the client knows them.
fn reset(module: &Module, counts: bool) {
    let mut desk = module.desk();
    desk.clear(None);
    desk.release(None, None);
    desk.sessions.give_back(None);
    desk.sessions.set_cap(None);
    desk.pins.count(None);
    if counts {
        desk.forget_counts();
    }
    drop(desk);
    module.wake();
}
