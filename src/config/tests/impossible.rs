//! One file for each configuration that cannot be: what it sets, and every word that is said of it.
//!
//! A file of `impossible/` begins with lines for the keyring `access-tokens` of the example, then whole tables if it has any; after `---` come
//! the errors. `CLAVIGER_WRITE_GOLDEN=1` writes these anew. That the remedies are the smallest ones is a property of the solver's own tests.

use super::*;

const BETWEEN: &str = "---\n";

/// The example with what the head of a file sets; `limits.deadline` stands elsewhere in it.
fn configuration(head: &str) -> String {
    let (own, tables) = head.find("[keyring").map_or((head, ""), |at| head.split_at(at));
    let (deadline, own): (Vec<&str>, Vec<&str>) = own.lines().partition(|line| line.starts_with("limits."));
    let mut text = EXAMPLE.replace("token_ttl = \"15m\"", &own.join("\n"));
    if let Some(line) = deadline.first() {
        text = text.replace("deadline = \"2s\"", line.trim_start_matches("limits."));
    }
    format!("{text}\n{tables}")
}

#[test]
fn every_impossible_configuration_has_its_words() {
    #[expect(clippy::disallowed_methods, reason = "whoever changes a message asks for new files; no program reads this")]
    let writes = std::env::var_os("CLAVIGER_WRITE_GOLDEN").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/impossible");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let (mut rules, mut differing) = (std::collections::BTreeSet::new(), Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).expect("a text file");
        let (head, _) = text.split_once(BETWEEN).unwrap_or((&text, ""));
        let errors = errors_of(&configuration(head));
        let inequality = |error: &String| error.split(": ").nth(1).filter(|rule| rule.len() == 2).map(str::to_owned);
        rules.extend(errors.iter().filter_map(inequality));
        let expected = format!("{head}{BETWEEN}{}\n", errors.join("\n"));
        if writes {
            fs::write(&file, &expected).expect("our own file");
        } else if text != expected {
            differing.push(format!("{}:\n{expected}", file.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert_eq!(rules.iter().map(String::as_str).collect::<Vec<_>>(), ["I1", "I2", "I4", "I5", "I6", "I8"], "each inequality has a file");
}
