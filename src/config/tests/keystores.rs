//! Keystores: how a token may be named, one error for each way not to, and no PIN in any of them.

use serde_json::json;

use super::*;

const SECRET: &str = "S3CR3T";
const TOKEN: &str = "token = \"claviger\"";
const MODULE: &str = "module = \"/usr/lib/softhsm/libsofthsm2.so\"";
const PIN_FILE: &str = "pin_file = \"$CREDENTIALS_DIRECTORY/pin\"";

/// The example's keystore with another token, and without the settings that begin so.
fn keystore(token: &str, without: &[&str]) -> String {
    let text = with(TOKEN, &format!("token = {token:?}"));
    without.iter().fold(text, |text, setting| {
        assert_eq!(text.matches(setting).count(), 1, "{setting}");
        text.replace(setting, "")
    })
}

fn hsm(text: &str) -> Pkcs11Config {
    match parse(text).expect("right").keystores.remove("hsm").expect("it is there") {
        KeystoreConfig::Pkcs11(pkcs11) => pkcs11,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_uri_names_the_token_and_may_name_its_files() {
    let Pkcs11Config { module, token, pin, .. } = hsm(&keystore("pkcs11:token=claviger", &[]));
    assert_eq!((token, module), (TokenSelector::label("claviger"), "/usr/lib/softhsm/libsofthsm2.so".into()));
    assert_eq!(pin.path(), Path::new("/run/credentials/claviger/pin"));

    let whole = "pkcs11:serial=12ab?module-path=/opt/lib%20hsm.so&pin-source=file:/etc/claviger/pin";
    let Pkcs11Config { module, token, pin, .. } = hsm(&keystore(whole, &[MODULE, PIN_FILE]));
    assert_eq!((token, module), (TokenSelector::serial("12ab"), "/opt/lib hsm.so".into()));
    assert_eq!(pin, SecretFile::new("/etc/claviger/pin", Some(Path::new("/run/credentials/claviger"))));

    // Said twice, it must be the same.
    let both = "pkcs11:token=a?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/credentials/claviger/pin";
    hsm(&keystore(both, &[]));
    assert_eq!(
        errors_of(&keystore("pkcs11:token=a?module-path=/other.so&pin-source=/other", &[])),
        [
            "keystore.hsm.module: is not the file that the URI in `token` names; name it in one place, or the same file in both",
            "keystore.hsm.pin_file: is not the file that the URI in `token` names; name it in one place, or the same file in both",
        ]
    );
}

#[test]
fn one_file_by_two_paths_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.so"), folder.path().join("link.so"));
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let text = keystore(&format!("pkcs11:token=claviger?module-path={}", link.display()), &[]);
    let text = text.replace(MODULE, &format!("module = {:?}", real.display().to_string()));
    hsm(&text);
    let second = |token: &str| {
        format!("{text}\n[keystore.two]\ntype = 'pkcs11'\nmodule = {:?}\ntoken = '{token}'\npin_file = 'p'\n", link.display())
    };
    assert_eq!(
        errors_of(&second("pkcs11:token=claviger;model=m")),
        ["keystore.two.token: keystore hsm has this token too; remove one: a token is one keystore, whatever its workers"]
    );
    assert!(parse(&second("other")).is_ok());
}

#[test]
fn what_neither_says_is_missing() {
    assert_eq!(
        errors_of(&keystore("pkcs11:token=claviger", &[MODULE, PIN_FILE])),
        [
            "keystore.hsm.module: is missing; name the module's shared library",
            "keystore.hsm.pin_file: is missing; name the file that holds the PIN, such as \"$CREDENTIALS_DIRECTORY/pin\"",
        ]
    );
    // A URI that is wrong may have said it: one error is enough.
    assert_eq!(
        errors_of(&keystore("pkcs11:slot-id=1?module-path=/m&pin-source=/p", &[MODULE, PIN_FILE])),
        ["keystore.hsm.token: attribute 1 of the URI's path names a slot; say token or serial: slots move, tokens do not"]
    );
    assert_eq!(errors(TOKEN, ""), ["keystore.hsm.token: is missing; write the token's label, serial=NUMBER or an RFC 7512 URI"]);
}

#[test]
fn a_keystore_holds_no_secret() {
    let refused = "keystore.hsm.token: holds a pin-value; take it out, and write the PIN into a file: pin_file or pin-source names it";
    assert_eq!(errors(TOKEN, "token = 'pkcs11:token=claviger?pin-value=1234'"), [refused]);
    assert_eq!(errors(TOKEN, "token = 'pkcs11:token=%zz?module-name=x&pin-value=1234'"), [refused]);
    assert_eq!(
        errors("pin_file = ", "pin = '1234'\npin_file = "),
        ["keystore.hsm.pin: there is no such setting; did you mean `pin_file`?"]
    );
    assert_eq!(
        errors(PIN_FILE, "pin_file = 'pkcs11:token=a?pin-value=1234'"),
        ["keystore.hsm.pin_file: is a PKCS#11 URI; write the path of a file or folder; a URI stands in a keystore's `token`"]
    );
    assert_eq!(
        errors("type = \"pkcs11\"", "type = 'pkcs11:token=a?pin-value=1234'"),
        ["keystore.hsm.type: is a PKCS#11 URI, or what is left of one; a URI stands in a keystore's `token`, without a PIN"]
    );
}

#[test]
fn a_keystore_is_one_token() {
    let twice = format!(
        "{}\n[keystore.two]\ntype = 'pkcs11'\nmodule = '/usr/lib/softhsm/libsofthsm2.so'\ntoken = 'claviger'\npin_file = 'p'\n",
        *EXAMPLE
    );
    assert_eq!(
        errors_of(&twice),
        ["keystore.two.token: keystore hsm has this token too; remove one: a token is one keystore, whatever its workers"]
    );
    assert_eq!(
        errors("token = \"claviger\"", "token = 'abcdefghijklmnopqrstuvwxyz0123456'"),
        [
            "keystore.hsm.token: is not a token's label or serial; write its label, serial=NUMBER or an RFC 7512 URI; the PIN stands in pin_file"
        ]
    );
    assert_eq!(errors("workers = 2", "workers = 65"), ["keystore.hsm.workers: 65 is out of bounds; write a number from 1 to 64"]);
}

#[test]
fn a_profile_is_known_and_only_some_attributes_may_be_missing() {
    let with = |profile: &str, omits: &str| {
        EXAMPLE.replace("profile = \"strict\"", &format!("profile = {profile:?}")).replace("omits = []", &format!("omits = {omits}"))
    };
    let config = parse(&with("opencryptoki-before-3.16", "['modifiable', 'copyable']")).expect("right");
    assert_eq!(
        config.keystores["hsm"].allowance().as_deref(),
        Some("profile opencryptoki-before-3.16, copyable, modifiable may be missing")
    );
    let told = serde_json::to_value(&config.effective().keystores["hsm"]).unwrap();
    assert_eq!((&told["type"], &told["profile"]), (&json!("pkcs11"), &json!("opencryptoki-before-3.16")));
    assert_eq!(
        (&told["omits"], &told["token"], &told["workers"]),
        (&json!(["copyable", "modifiable"]), &json!("label \"claviger\""), &json!(2))
    );
    let known = "take it out; only these may be missing: sign-recover, decrypt, unwrap, derive, copyable, modifiable";
    let refused =
        |index, name| format!("keystore.hsm.omits[{index}]: {name:?} may not be missing, or is no attribute that is asked for; {known}");
    assert_eq!(
        errors_of(&with("luna", "['derive', 'sensitive', 'Copyable', 'never-extractable']")),
        [
            "keystore.hsm.profile: \"luna\" is not a profile of a device; known are strict, opencryptoki-before-3.16".to_owned(),
            refused(1, "sensitive"),
            refused(2, "Copyable"),
            refused(3, "never-extractable"),
        ]
    );
}

/// In place of every value, every name of a table and every name of a setting, whole and with its end cut off.
#[test]
fn a_pin_in_the_wrong_place_is_in_no_answer() {
    let mut refused = 0;
    for uri in ["pkcs11:token=a?pin-value=S3CR3T", "token=a&pin-value=S3CR3T", "pkcs11:S3CR3T"] {
        for (start, end) in quoted(&EXAMPLE).into_iter().chain(names(&EXAMPLE)) {
            let put = |text: &str| [&EXAMPLE[..start], text, &EXAMPLE[end..]].concat();
            for text in [put(&format!("{uri:?}")), put(&format!("\"{uri}")), put(&format!("{uri:?} {uri:?}")), put(uri)] {
                // Where any text may stand, such as the origin, it is a name like any other.
                let Err(errors) = parse(&text) else { continue };
                let said = format!("{}\n{errors:?}", errors.iter().map(ToString::to_string).collect::<String>());
                assert!(!said.contains(SECRET), "at byte {start}: {said}");
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

/// Where the quoted strings of a text stand, with their quotes; comments have none.
fn quoted(text: &str) -> Vec<(usize, usize)> {
    let marks: Vec<usize> = code(text).filter(|(_, byte)| *byte == b'"').map(|(at, _)| at).collect();
    marks.chunks_exact(2).map(|pair| (pair[0], pair[1] + 1)).collect()
}

/// Where the names before an equals sign stand, and the last names of tables.
fn names(text: &str) -> Vec<(usize, usize)> {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let ends = code(text).filter(|(at, byte)| text[*at..].starts_with(" =") || *byte == b']').map(|(at, _)| at);
    let begin = |end: usize| text.as_bytes()[..end].iter().rposition(|byte| !bare(*byte)).map_or(0, |before| before + 1);
    ends.map(|end| (begin(end), end)).filter(|(start, end)| start < end).collect()
}

/// The bytes of a text outside its comments.
fn code(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut comment = false;
    text.bytes().enumerate().filter(move |(_, byte)| {
        comment = *byte != b'\n' && (comment || *byte == b'#');
        !comment
    })
}
