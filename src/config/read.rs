//! Text to [`RawConfig`], with every unknown name and every value of the wrong kind, not only the first.
//!
//! How: the reader stops at the first error, so that value is taken out of the tree and the rest is read again. In scope: the form of the
//! file. Out of scope: its meaning.

use serde_path_to_error::Segment;
use toml::Deserializer;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Document, MOST_ERRORS, Place, Problems, Step, line_at};
use super::keystore::KINDS;
use super::raw::RawConfig;

/// Largest file in bytes: a thousand keyrings fit, and a mistaken path to a large file is refused before it is parsed.
pub(super) const LONGEST_TEXT: usize = 1 << 20;
/// How far a misspelt name may lie from the one that is proposed: a typing error, not another word.
const LIKELY: f64 = 0.75;

/// Parses the text into its tree.
pub(super) fn document(text: &str) -> Result<Document<'_>, Vec<ConfigError>> {
    if text.len() > LONGEST_TEXT {
        let problem = format!("the file has {} bytes, at most {LONGEST_TEXT} are read", text.len());
        let remedy = "name the configuration file itself".to_owned();
        return Err(vec![ConfigError { setting: String::new(), line: None, problem, remedy }]);
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Document { text, root });
    }
    let explain = |error: &toml::de::Error| ConfigError {
        setting: String::new(),
        line: Some(line_at(text, error.span().map_or(text.len(), |span| span.start))),
        problem: format!("is not TOML: {}", error.message()),
        remedy: "correct the line".to_owned(),
    };
    let mut errors: Vec<ConfigError> = errors.iter().take(MOST_ERRORS).map(explain).collect();
    errors.sort_by_key(|error| error.line);
    Err(errors)
}

/// Reads the tree, or says everything that has no place in it.
pub(super) fn raw(document: &Document<'_>) -> Result<RawConfig, Vec<ConfigError>> {
    let mut problems = Problems::of(document);
    let mut rest = document.root.clone();
    refuse_unbuilt_keystores(rest.get_mut(), &mut problems);
    for _ in 0..MOST_ERRORS {
        let error = match serde_path_to_error::deserialize::<_, RawConfig>(Deserializer::from(rest.clone())) {
            Ok(raw) if problems.is_empty() => return Ok(raw),
            Ok(_) => break,
            Err(error) => error,
        };
        let place = place(error.path());
        let (problem, remedy) = explain(error.inner().message(), rest.get_ref(), &place);
        problems.add(&place, problem, remedy);
        if !take_out(rest.get_mut(), &place.0) {
            break;
        }
    }
    Err(problems.into_found())
}

/// A keystore of a type that is not built has settings of its own, so that each of them would be an error: one is enough.
fn refuse_unbuilt_keystores(root: &mut DeTable<'_>, problems: &mut Problems<'_>) {
    let Some(DeValue::Table(keystores)) = root.get_mut("keystore").map(toml::Spanned::get_mut) else { return };
    let kind = |keystore: &DeValue<'_>| keystore.get("type").and_then(|kind| kind.get_ref().as_str()).map(str::to_owned);
    let all = keystores.iter().filter_map(|(name, keystore)| Some((name.get_ref().to_string(), kind(keystore.get_ref())?)));
    let unbuilt: Vec<(String, String)> = all.filter(|(_, kind)| !KINDS.contains(&kind.as_str())).collect();
    for (name, kind) in unbuilt {
        let place = Place::of("keystore").key(&name).key("type");
        let remedy = match kind.as_str() {
            "aws-kms" => "build Claviger with the feature aws-kms, which is on by default".to_owned(),
            _ => format!("write one of {}", KINDS.join(", ")),
        };
        problems.add(&place, format!("{kind:?} is not a keystore that this build has"), remedy);
        keystores.remove(name.as_str());
    }
}

fn place(path: &serde_path_to_error::Path) -> Place {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    Place(path.iter().filter_map(step).collect())
}

/// Says in our words what the reader found, without the value: somebody may have written a PIN there.
fn explain(message: &str, root: &DeTable<'_>, place: &Place) -> (String, String) {
    if let (Some((_, known)), Some(Step::Key(name))) = (message.split_once(", expected "), place.0.last())
        && message.starts_with("unknown field")
    {
        return unknown_setting(name, known.split('`').skip(1).step_by(2));
    }
    let is = value_at(root, &place.0).map_or("this", kind_of);
    let expected = message.rsplit_once(", expected ").map_or(message, |(_, expected)| expected);
    (format!("{is} cannot stand here"), format!("write {expected}"))
}

/// Describes a name that is no setting: the nearest known one, or all of them.
pub(super) fn unknown_setting<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> (String, String) {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    let likeness = |candidate: &str| strsim::jaro_winkler(name, candidate).max(strsim::normalized_damerau_levenshtein(name, candidate));
    let nearest = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let remedy = match nearest.filter(|nearest| likeness(nearest) >= LIKELY) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    ("there is no such setting".to_owned(), remedy)
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "this string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn value_at<'a, 't>(table: &'a DeTable<'t>, steps: &[Step]) -> Option<&'a DeValue<'t>> {
    let (Step::Key(first), rest) = steps.split_first()? else { return None };
    let start = table.get(first.as_str())?.get_ref();
    rest.iter().try_fold(start, |value, step| match step {
        Step::Key(key) => value.get(key.as_str()).map(toml::Spanned::get_ref),
        Step::Index(index) => value.get(*index).map(toml::Spanned::get_ref),
    })
}

/// Removes the setting from the tree; an item of an array goes with its whole array, since the places of the others would move.
fn take_out(table: &mut DeTable<'_>, steps: &[Step]) -> bool {
    let Some((Step::Key(key), rest)) = steps.split_first() else { return false };
    let taken_within = match (table.get_mut(key.as_str()).map(toml::Spanned::get_mut), rest) {
        (None, _) => return false,
        (Some(DeValue::Table(inner)), rest) => take_out(inner, rest),
        (Some(DeValue::Array(items)), [Step::Index(index), rest @ ..]) if !rest.is_empty() => {
            match items.get_mut(*index).map(toml::Spanned::get_mut) {
                Some(DeValue::Table(inner)) => take_out(inner, rest),
                _ => false,
            }
        }
        _ => false,
    };
    taken_within || table.remove(key.as_str()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        document(text).and_then(|document| raw(&document)).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_misspelt_setting_names_the_nearest() {
        assert_eq!(
            errors("[keyring.a]\ntoken_tll = '15m'\n"),
            ["line 2: keyring.a.token_tll: there is no such setting; did you mean `token_ttl`?"]
        );
        assert_eq!(
            errors("[issuer.main]\nzzz = 1"),
            ["line 2: issuer.main.zzz: there is no such setting; known here: default, discovery, path, url"]
        );
        assert_eq!(errors("keyrings = 1"), ["line 1: keyrings: there is no such setting; did you mean `keyring`?"]);
    }

    #[test]
    fn all_errors_of_form_are_told_at_once() {
        let text = "node = 7\n[keyring.a]\ntoken_ttl = 900\nrotate_evry = '1d'\nclock_skew = '30M'\n[[listener]]\nbind = 1\n\
                    serves = ['sign', 4]\n";
        assert_eq!(
            errors(text),
            [
                "line 1: node: an integer cannot stand here; write a string",
                "line 3: keyring.a.token_ttl: an integer cannot stand here; write a duration with its unit, such as \"500ms\", \"30s\", \
                 \"15m\", \"1h 30m\" or \"7d\"",
                "line 4: keyring.a.rotate_evry: there is no such setting; did you mean `rotate_every`?",
                "line 5: keyring.a.clock_skew: this string cannot stand here; write a duration with its unit, such as \"500ms\", \"30s\", \
                 \"15m\", \"1h 30m\" or \"7d\"",
                "line 7: listener[0].bind: an integer cannot stand here; write a string",
                "line 8: listener[0].serves[1]: an integer cannot stand here; write a string",
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_not_repeated() {
        let text = "[keystore.hsm]\npin_file = 123456\npin = '654321'\n[caller.'unix:uid=0']\npin = 777777\n";
        let errors = errors(text).join("\n");
        assert_eq!(errors.lines().count(), 3, "{errors}");
        assert!(!errors.contains("123456") && !errors.contains("654321") && !errors.contains("777777"), "{errors}");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        assert_eq!(errors("node = 'a'\nnode = 'b'\n"), ["line 2: is not TOML: duplicate key; correct the line"]);
        let several = errors("node = \n[log\n");
        assert!(several.len() > 1 && several[0].starts_with("line 1: is not TOML: "), "{several:?}");
        assert_eq!(
            errors(&" ".repeat(LONGEST_TEXT + 1)),
            ["the file has 1048577 bytes, at most 1048576 are read; name the configuration file itself"]
        );
    }

    #[test]
    fn deep_nesting_is_refused_before_it_is_followed() {
        let depth = LONGEST_TEXT / 2 - 8;
        for text in [
            format!("a = {}", "[".repeat(depth)),
            format!("a = {}", "{a=".repeat(depth / 2)),
            format!("{}a = 1", "a.".repeat(depth)),
            format!("[{}a]", "a.".repeat(depth)),
            format!("[[{}a]]", "a.".repeat(depth)),
        ] {
            assert!(!errors(&text).is_empty());
        }
    }

    #[test]
    fn a_keystore_that_is_not_built_is_one_clear_error() {
        let text = "[keystore.v]\ntype = 'azure'\naddress = 'https://v'\nlogin = { type = 'approle' }\n[keystore.k]\ntype = 'yubihsm'\n";
        let known = KINDS.join(", ");
        assert_eq!(
            errors(text),
            [
                format!("line 2: keystore.v.type: \"azure\" is not a keystore that this build has; write one of {known}"),
                format!("line 6: keystore.k.type: \"yubihsm\" is not a keystore that this build has; write one of {known}"),
            ]
        );
    }
}
