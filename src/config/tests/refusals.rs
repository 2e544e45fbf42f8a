//! One test for each refusal of everything else, with its words.

use super::*;

#[test]
fn settings_of_witnesses_need_witnesses() {
    assert_eq!(
        errors("witnesses = \"witnesses.policy\"", ""),
        [
            "log.witness_timeout: has no effect without witnesses; name a policy file with witnesses, or remove it",
            "log.witness_ca_file: has no effect without witnesses; name a policy file with witnesses, or remove it",
        ]
    );
    assert_eq!(
        errors("witness_timeout = \"5s\"", "witness_timeout = \"2m\""),
        ["log.witness_timeout: 2m is out of bounds; write a duration from 100ms to 20s"]
    );
    assert_eq!(
        errors("witnesses = \"witnesses.policy\"", "witnesses = \"\""),
        ["log.witnesses: is not a path; write the path of a file or folder"]
    );
}

#[test]
fn an_empty_file_names_everything_that_is_missing() {
    assert_eq!(
        errors_of(""),
        [
            "installation: is missing; write 1 to 24 of a-z, 0-9 and -, beginning with a letter",
            "node: is missing; write 1 to 24 of a-z, 0-9 and -, beginning with a letter",
            "origin: is missing; name the logs, such as \"example.org/claviger\"",
            "state: is missing; name the folder",
            "policies: is missing; name the folder",
            "log.keystore: is missing; name the keystore in which the log keys live",
            "listener: is missing; add [[listener]] with bind and serves: nothing would be served",
        ]
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let text = with("origin = \"example.org/claviger\"", "origin = 'https://example.org'")
        .replace("algorithm = \"ES256\"", "algorithm = \"none\"")
        .replace("workers = 2", "workers = 0")
        .replace("keystore = \"hsm\"                          # where", "keystore = \"hms\" # where");
    assert_eq!(errors_of(&text).len(), 4);
}

#[test]
fn names_are_labels() {
    let label = "write 1 to 24 of a-z, 0-9 and -, beginning with a letter";
    assert_eq!(errors("installation = \"prod\"", "installation = \"Prod\""), [format!("installation: \"Prod\" is not a name; {label}")]);
    assert_eq!(
        errors("node = \"a\"", "node = \"abcdefghijklmnopqrstuvwxy\""),
        [format!("node: \"abcdefghijklmnopqrstuvwxy\" is not a name; {label}")]
    );
    let log = EXAMPLE.replace("[keyring.webhooks", "[keyring.log");
    assert_eq!(errors_of(&log), ["keyring.log: the name `log` is reserved for the log keys; choose another name"]);
    assert_eq!(
        errors("installation = \"prod\"", "installation = \"claviger-hsm-check\""),
        ["installation: the name `claviger-hsm-check` is reserved for the throw-away keys of `claviger hsm check`; choose another name"]
    );
}

#[test]
fn an_origin_is_a_key_name_of_c2sp() {
    let long = format!("a.example/{}", "a".repeat(200));
    for bad in ["", "example.org/a b", "a+b.example", "https://a.example", "a.example/", "é.example", &long] {
        assert_eq!(
            errors("origin = \"example.org/claviger\"", &format!("origin = {bad:?}")),
            [format!(
                "origin: {bad:?} is not an origin; write a host name and a path without a scheme, such as example.org/claviger: 1 to 200 ASCII \
                 characters, no space, no +"
            )]
        );
    }
}

#[test]
fn an_issuer_url_has_one_spelling() {
    let from = "url = \"https://auth.example.org/t1\"";
    let remedy = "write what stands in iss, such as \"https://auth.example.org/t1\"";
    let one_way = "is not written in the one usual way: lower-case host, no empty or dotted path segment, no escapes";
    for (bad, defect) in [
        ("auth example", "is not an address"),
        ("auth.example.org", "has no scheme and host"),
        ("http://auth.example.org", "does not begin with https:// (http:// is for loopback alone)"),
        ("https://a.example?b", "has a query or a fragment"),
        ("https://a.example/#b", "has a query or a fragment"),
        ("https://u@a.example", "names a user"),
        ("https://a.example/", "ends with a slash"),
        ("https://A.example", one_way),
        ("HTTPS://a.example", one_way),
        ("https://a.example/a//b", one_way),
        ("https://a.example/%61", one_way),
        ("https://a.example/../b", one_way),
        ("https://a.example:", one_way),
        ("https://a.example:0443", one_way),
        ("https://a.example:99999", one_way),
        ("https://a_b.example", one_way),
        ("https://[0::1]", one_way),
    ] {
        assert_eq!(errors(from, &format!("url = {bad:?}")), [format!("issuer.main.url: {bad:?} {defect}; {remedy}")], "{bad}");
    }
    for right in ["https://a.example", "https://a.example:8443/x/y", "http://127.0.0.1:8080", "http://localhost/t", "http://[::1]:80"] {
        let config = parse(&with(from, &format!("url = {right:?}"))).expect(right);
        assert_eq!(config.issuers["main"].url, right);
    }
}

#[test]
fn an_issuer_path_is_a_route_of_its_own() {
    let remedy = "write a slash and a name, such as \"/t1\": letters, digits and - . _ ~ alone";
    for bad in ["", "/", "t1", "/t1/", "//t1", "/a//b", "/..", "/.well-known", "/a%62", "/a b"] {
        assert_eq!(errors("path = \"/t1\"", &format!("path = {bad:?}")), [format!("issuer.main.path: {bad:?} is not a path; {remedy}")]);
    }
    for ours in OUR_ROUTES {
        assert_eq!(
            errors("path = \"/t1\"", &format!("path = \"/{ours}/x\"")),
            [format!("issuer.main.path: /{ours} is a route of Claviger's own; choose another path")]
        );
    }
}

#[test]
fn two_issuers_share_nothing() {
    let second = "[issuer.other]\nurl = 'https://auth.example.org/t1'\npath = '/t1'\ndefault = true\n";
    assert_eq!(
        errors_of(&format!("{}\n{second}", *EXAMPLE)),
        [
            "issuer.other.url: issuer main has it too; give each issuer a url of its own",
            "issuer.other.path: issuer main has it too; give each issuer a path of its own",
            "issuer.other.default: issuer main is the default too; choose one",
        ]
    );
}

#[test]
fn what_is_not_built_is_refused_clearly() {
    let refused = format!("is not a keystore that this build has; write one of {}", keystore::KINDS.join(", "));
    assert_eq!(errors("type = \"pkcs11\"", "type = 'azure'\nmount = 'transit'"), [format!("keystore.hsm.type: \"azure\" {refused}")]);
    assert_eq!(errors("type = \"pkcs11\"", "type = 'yubihsm'"), [format!("keystore.hsm.type: \"yubihsm\" {refused}")]);
    assert_eq!(
        errors("purpose = \"jws\"", "purpose = \"digest\""),
        ["keyring.webhooks.purpose: \"digest\" is not a purpose that this build has; write \"jwt\" or \"jws\""]
    );
}

#[test]
fn only_the_folder_of_credentials_is_expanded() {
    let pin = "pin_file = \"$CREDENTIALS_DIRECTORY/pin\"";
    assert_eq!(
        errors(pin, "pin_file = '$HOME/pin'"),
        ["keystore.hsm.pin_file: begins with $; only $CREDENTIALS_DIRECTORY/NAME is expanded; write any other path in full"]
    );
    assert_eq!(
        errors(pin, "pin_file = '$CREDENTIALS_DIRECTORY/../pin'"),
        ["keystore.hsm.pin_file: leaves the folder of credentials; write $CREDENTIALS_DIRECTORY/ and the name of a credential"]
    );
    assert_eq!(errors(pin, "pin_file = ''"), ["keystore.hsm.pin_file: is not a path; write the path of a file or folder"]);
    let unset = Config::parse(&EXAMPLE, Path::new("claviger.toml"), None).unwrap_err();
    let words: Vec<String> = unset.iter().map(|error| format!("{}: {}; {}", error.setting, error.problem, error.remedy)).collect();
    let remedy = "$CREDENTIALS_DIRECTORY is not set; start under systemd with LoadCredential=, or write the path in full";
    let settings = ["keystore.hsm.pin_file", "keystore.vault.login.secret_id_file", "listener[2].tls.key"];
    assert_eq!(words, settings.map(|setting| format!("{setting}: {remedy}")));
}

#[test]
fn what_is_referred_to_exists() {
    assert_eq!(
        errors("keystore = \"hsm\"                          # where", "keystore = 'hms' # where"),
        ["log.keystore: there is no keystore \"hms\"; known are hsm, kms, vault"]
    );
    assert_eq!(
        errors("keystore = \"hsm\"                          # of", "keystore = 'hms' # of"),
        ["keyring.access-tokens.keystore: there is no keystore \"hms\"; known are hsm, kms, vault"]
    );
    assert_eq!(
        errors("issuer = \"main\"", "issuer = 'minor'"),
        ["keyring.access-tokens.issuer: there is no issuer \"minor\"; known are main"]
    );
}

#[test]
fn limits_are_bounded() {
    assert_eq!(
        errors("deadline = \"2s\"", "deadline = '5ms'"),
        ["limits.deadline: 5ms is out of bounds; write a duration from 10ms to 1m"]
    );
    assert_eq!(
        errors("body_bytes = 65536", "body_bytes = 10"),
        ["limits.body_bytes: 10 is out of bounds; write a number from 1024 to 16777216"]
    );
    assert_eq!(
        errors("batch_bytes = 1048576", "batch_bytes = 2048"),
        ["limits.batch_bytes: 2048 is less than body_bytes, 65536: a batch of one would not fit; raise it to 65536"]
    );
    assert_eq!(errors("rate = 500", "rate = 0"), ["limits.rate: 0 is out of bounds; write a number from 1 to 1000000"]);
    assert_eq!(
        errors("subject = \"hash\"", "subject = 'sha'"),
        ["audit.subject: \"sha\" is not known; write \"hash\", \"plain\" or \"omit\""]
    );
    assert_eq!(
        errors("retention = \"90d\"", "retention = \"0s\""),
        ["audit.retention: 0s is out of bounds; write a duration from 1s to 3650d"]
    );
}

#[test]
fn a_caller_is_an_identity() {
    let forms = "write spiffe://DOMAIN/PATH, dns:NAME, unix:uid=N, oidc:ISSUER#SUB or token:NAME";
    for (bad, problem) in [
        ("ci", "is not a caller"),
        ("mailto:a", "is not a caller"),
        ("unix:uid=01", "is not a caller: a uid is a whole number without leading zeros"),
        ("spiffe://a", "is not a caller: a workload's SPIFFE ID has a path"),
        ("oidc:https://a.example", "is not a caller: a # stands between issuer and subject"),
    ] {
        let place = if bad.contains(':') { format!("caller.{bad:?}") } else { format!("caller.{bad}") };
        assert_eq!(errors("[caller.\"unix:uid=1000\"]", &format!("[caller.{bad:?}]")), [format!("{place}: {problem}; {forms}")]);
    }
    assert_eq!(
        errors("[caller.\"unix:uid=1000\"]", "[caller.\"oidc:https://auth.example.org/t1#op\"]"),
        [
            "caller.\"oidc:https://auth.example.org/t1#op\": is a caller of an issuer whose tokens are signed here; take callers from another \
          issuer: else whoever may sign could mint an operator"
        ]
    );
}

#[test]
fn a_caller_has_one_section() {
    let twice = format!("{}\n[caller.'dns:CI.example.org']\n[caller.'dns:ci.example.org']\ngroups = ['issuers']\n", *EXAMPLE);
    assert_eq!(
        errors_of(&twice),
        ["caller.\"dns:ci.example.org\": is dns:ci.example.org, which stands here already; write what is known of a caller in one section"]
    );
    let config = parse(&format!("{}\n[caller.'dns:CI.example.org']\n", *EXAMPLE)).expect("host names are read in any case");
    assert!(config.callers.contains_key(&"dns:ci.example.org".parse().expect("an identity")));
}

#[test]
fn a_token_caller_has_the_hash_of_its_token_and_no_other_has() {
    let hash = "token_sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"";
    let at = "caller.\"token:ci\".token_sha256";
    assert_eq!(errors(hash, ""), [format!("{at}: is missing; write the SHA-256 of the caller's bearer token in hex")]);
    assert_eq!(errors(hash, "token_sha256 = 'S3CRET'"), [format!("{at}: is not a SHA-256; write 64 lower-case hex digits")]);
    assert_eq!(
        errors(hash, &hash.replace("sha256", "sha265")),
        [
            format!("{at}: is missing; write the SHA-256 of the caller's bearer token in hex"),
            "caller.\"token:ci\".token_sha265: is almost the name of a setting; did you mean `token_sha256`?".to_owned(),
        ]
    );
    assert_eq!(
        errors_of(&format!("{}\n[caller.'token:other']\n{hash}\n", *EXAMPLE)),
        ["caller.\"token:other\".token_sha256: is the token of token:ci too; make a token for each caller"]
    );
    assert_eq!(
        errors_of(&format!("{}\n[caller.'unix:uid=1']\n{hash}\n", *EXAMPLE)),
        ["caller.\"unix:uid=1\".token_sha256: is for callers of the form token:NAME; remove it"]
    );
}

#[test]
fn attributes_are_strings_and_groups_a_list() {
    let from = "groups = [\"issuers\"]\ntenant = \"t1\"";
    let at = "caller.\"unix:uid=1000\"";
    assert_eq!(errors(from, "groups = 'issuers'"), [format!("{at}.groups: is a list of names; write groups = [\"NAME\"]")]);
    assert_eq!(errors(from, "groups = ['']"), [format!("{at}.groups: holds an empty name; remove it")]);
    assert_eq!(errors(from, "tenants = ['a']"), [format!("{at}.tenants: is a list; write one string; only groups is a list")]);
    assert_eq!(
        errors(from, "uid = '7'"),
        [format!("{at}.uid: the name is taken: every caller has it; choose another name, or have fewer")]
    );
    assert_eq!(
        errors(from, "level = 7"),
        [format!("{at}.level: an integer cannot stand here; write a string, or a list of strings for `groups`")]
    );
}
