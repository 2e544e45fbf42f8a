//! Reads a Rust source as far as the rules need it: code without comments and literals, tests apart from production, and the paths it names.
//!
//! Out of scope: types, macros' expansions, and everything that only a compiler knows. A name behind a local alias is not followed; the alias
//! itself stands in a `use`, which is.

/// One file under judgement.
pub(crate) struct Source {
    /// Relative to the repository, with forward slashes.
    pub(crate) path: String,
    /// As it is on the disk.
    pub(crate) text: String,
    /// The code outside tests: comments, literals and tests are blank, so that lines keep their numbers.
    pub(crate) production: String,
    /// The code inside tests, likewise.
    pub(crate) tests: String,
}

/// A path that production code names, such as `std::fs::File`, with `use` trees spread out and `self`, `super` and `claviger` resolved.
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) path: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = blank_comments_and_literals(text);
        let is_test = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
        let (production, tests) = if is_test { (String::new(), code) } else { split_tests(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), production, tests }
    }

    /// Whether the file belongs to a room: `src/rotation` is both `src/rotation.rs` and everything under `src/rotation/`.
    pub(crate) fn is_in(&self, room: &str) -> bool {
        self.path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    }

    /// Every path that the production code names.
    pub(crate) fn named_paths(&self) -> Vec<NamedPath> {
        let module = module_of(&self.path);
        let code: Vec<char> = self.production.chars().collect();
        let mut found = Vec::new();
        let mut at = 0;
        while at < code.len() {
            if !is_name(code[at]) {
                at += 1;
                continue;
            }
            let line = 1 + code[..at].iter().filter(|c| **c == '\n').count();
            let (path, mut end) = path_at(&code, at);
            let mut paths = Vec::new();
            if path == "use" {
                let semicolon = (end..code.len()).find(|i| code[*i] == ';').unwrap_or(code.len());
                spread("", &code[end..semicolon].iter().collect::<String>(), &mut paths);
                end = semicolon;
            } else if path.contains("::") {
                paths.push(path);
            }
            found.extend(paths.iter().map(|path| NamedPath { line, path: resolve(&module, path) }));
            at = end;
        }
        found
    }
}

/// Whether `path` is `banned`, or lies in it, or is a glob that brings it in.
pub(crate) fn reaches(path: &str, banned: &str) -> bool {
    let lies_in = |path: &str, root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with("::"));
    lies_in(path, banned) || path.strip_suffix("::*").is_some_and(|parent| lies_in(banned, parent))
}

/// The lines on which `word` stands by itself: not as a part of a longer name, nor as a lifetime.
pub(crate) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let bounded = |line: &str, at: usize| {
        let before = line[..at].chars().next_back().is_some_and(|c| (is_name(c) || c == '\'') && word.starts_with(is_name));
        let after = line[at + word.len()..].chars().next().is_some_and(|c| is_name(c) && word.ends_with(is_name));
        !before && !after
    };
    let has = |line: &str| line.match_indices(word).any(|(at, _)| bounded(line, at));
    code.lines().enumerate().filter(|(_, line)| has(line)).map(|(index, _)| index + 1).collect()
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `crate::keystore::pkcs11` for both `src/keystore/pkcs11.rs` and `src/keystore/pkcs11/mod.rs`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("audit/").unwrap_or(path);
    let inside = inside.strip_prefix("src/").unwrap_or(inside).trim_end_matches(".rs");
    let mut module: Vec<String> = std::iter::once("crate").chain(inside.split('/')).map(str::to_owned).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

fn resolve(module: &[String], path: &str) -> String {
    let mut base = module.to_vec();
    let mut segments = path.split("::").peekable();
    match segments.peek() {
        Some(&"self") => drop(segments.next()),
        Some(&"super") => {
            while segments.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        Some(&"claviger") => {
            segments.next();
            base = vec!["crate".to_owned()];
        }
        _ => base.clear(),
    }
    base.extend(segments.map(str::to_owned));
    base.join("::")
}

/// The path that begins at `at`, and where it ends: names joined by `::`.
fn path_at(code: &[char], at: usize) -> (String, usize) {
    let mut path = String::new();
    let mut end = at;
    loop {
        while end < code.len() && is_name(code[end]) {
            path.push(code[end]);
            end += 1;
        }
        let joined = code.get(end) == Some(&':') && code.get(end + 1) == Some(&':');
        if !joined || !code.get(end + 2).is_some_and(|c| is_name(*c)) {
            return (path, end);
        }
        path.push_str("::");
        end += 2;
    }
}

/// Spreads `a::{b, c::{d, e as f}}` into `a::b`, `a::c::d`, `a::c::e`.
fn spread(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let join = |tail: &str| match (prefix, tail) {
        (_, "" | "self") if !prefix.is_empty() => prefix.to_owned(),
        ("", _) => tail.to_owned(),
        _ => format!("{prefix}::{tail}"),
    };
    let Some((head, rest)) = tree.split_once('{') else {
        let leaf = tree.split_whitespace().next().unwrap_or_default().trim_start_matches("::");
        if !leaf.is_empty() {
            paths.push(join(leaf));
        }
        return;
    };
    let prefix = join(head.trim().trim_end_matches("::").trim_start_matches("::"));
    let mut depth = 0;
    let mut part = String::new();
    for c in rest.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spread(&prefix, &std::mem::take(&mut part), paths);
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    spread(&prefix, &part, paths);
}

/// Splits blanked code into production and tests: an item under `#[cfg(test)]` is a test, to its closing brace or semicolon.
fn split_tests(code: &str) -> (String, String) {
    const MARK: &str = "#[cfg(test)]";
    let (mut production, mut tests) = (String::new(), String::new());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let (before, item) = rest.split_at(start);
        let (item, after) = item.split_at(end_of_item(item, MARK.len()));
        production.extend([before, &blanked(item)]);
        tests.extend([blanked(before).as_str(), item]);
        rest = after;
    }
    production.push_str(rest);
    tests.push_str(&blanked(rest));
    (production, tests)
}

fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices().skip_while(|(at, _)| *at < from) {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn blanked(text: &str) -> String {
    text.chars().map(blank).collect()
}

fn blank(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// Blanks comments, strings and character literals. Each branch consumes one token and says how long it is.
fn blank_comments_and_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let in_name = at > 0 && is_name(chars[at - 1]);
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => quoted(rest),
            ['b' | 'c', '"', ..] if !in_name => 1 + quoted(&rest[1..]),
            ['r', '"' | '#', ..] if !in_name => raw_string(rest, 1),
            ['b' | 'c', 'r', '"' | '#', ..] if !in_name => raw_string(rest, 2),
            ['\'', '\\', ..] => 3 + rest[3..].iter().position(|c| *c == '\'').unwrap_or(rest.len() - 4) + 1,
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(rest[..length].iter().map(|c| blank(*c)));
            at += length;
        }
    }
    code
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string whose hashes begin at `from`; 0 for a raw identifier such as `r#type`.
fn raw_string(rest: &[char], from: usize) -> usize {
    let hashes = rest[from..].iter().take_while(|c| **c == '#').count();
    if rest.get(from + hashes) != Some(&'"') {
        return 0;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = from + hashes + 1;
    rest[body..].windows(close.len()).position(|w| w == close).map_or(rest.len(), |end| body + end + close.len())
}
