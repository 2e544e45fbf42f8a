//! One test for each refusal of a keyring, with its words.

use super::*;

/// The example with another keyring of its issuer.
fn second_keyring(profile: &str) -> String {
    let keyring = "[keyring.id]\npurpose = 'jwt'\nissuer = 'main'\nalgorithm = 'ES256'\nkeystore = 'hsm'\n";
    format!("{}\n{keyring}profile = {{ {profile} }}\n", *EXAMPLE)
}

#[test]
fn a_keyring_says_what_it_signs_with() {
    assert_eq!(
        errors("algorithm = \"ES256\"", "algorithm = \"HS256\""),
        [
            "keyring.access-tokens.algorithm: \"HS256\" is not an algorithm; known are ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, \
          PS512, EdDSA, Ed25519"
        ]
    );
    assert_eq!(
        errors("purpose = \"jwt\"", "purpose = \"jwe\""),
        ["keyring.access-tokens.purpose: \"jwe\" is not a purpose; write \"jwt\" or \"jws\""]
    );
    assert_eq!(
        errors("purpose = \"jwt\"                           # jwt | jws\nissuer = \"main\"", "purpose = 'jwt'"),
        ["keyring.access-tokens.issuer: is missing; a jwt keyring names its issuer"]
    );
    assert_eq!(
        errors("policy_claims = { tenant = \"String\" }", "policy_claims = { tenant = 'Text' }"),
        ["keyring.access-tokens.policy_claims.tenant: \"Text\" is not the type of a claim; write String, Long, Bool or Set<String>"]
    );
    assert_eq!(
        errors("claim_types = { scope = \"String\" }", "claim_types = { tenant = 'Long' }"),
        ["keyring.access-tokens.profile.claim_types.tenant: Long here and String in policy_claims; write one type"]
    );
}

#[test]
fn a_jws_keyring_has_neither_issuer_nor_claims() {
    assert_eq!(
        errors("verify_within = \"15m\"", "issuer = 'main'\ntoken_ttl = '1m'\npolicy_claims = { a = 'Bool' }"),
        [
            "keyring.webhooks.verify_within: is missing; say how long verifiers may go on accepting a signature of a jws keyring",
            "keyring.webhooks.issuer: a jws keyring has no issuer: its keys are served in its own set alone; remove it",
            "keyring.webhooks.token_ttl: is for jwt keyrings; set verify_within: how long verifiers may accept a signature",
            "keyring.webhooks.policy_claims: a jws keyring signs bytes, which have no claims; remove it",
        ]
    );
    assert_eq!(
        errors("content_types = [\"application/json\"]", "audiences = ['a']\nrequired = ['b']"),
        [
            "keyring.webhooks.profile.audiences: a jws keyring signs bytes, which have no claims; remove it",
            "keyring.webhooks.profile.required: a jws keyring signs bytes, which have no claims; remove it",
        ]
    );
    assert_eq!(
        errors("token_ttl = \"15m\"", "verify_within = '1d'"),
        ["keyring.access-tokens.verify_within: is for jws keyrings; set token_ttl: the longest life of a token"]
    );
    assert_eq!(
        errors("typ = \"at+jwt\"", "typ = 'at+jwt'\ncontent_types = []"),
        ["keyring.access-tokens.profile.content_types: is for jws keyrings; remove it"]
    );
}

#[test]
fn a_profile_is_explicit() {
    let at = "keyring.access-tokens.profile";
    let typ = "write a media type without \"application/\", such as \"at+jwt\"";
    assert_eq!(errors("typ = \"at+jwt\"", "typ = 'application/jwt'"), [format!("{at}.typ: \"application/jwt\" is not a type; {typ}")]);
    assert_eq!(errors("typ = \"at+jwt\"", "typ = 'a b'"), [format!("{at}.typ: \"a b\" is not a type; {typ}")]);
    assert_eq!(
        errors("typ = \"at+jwt\"", ""),
        [format!("{at}.typ: is missing; write the type of its tokens, such as \"at+jwt\" (RFC 8725 section 3.11)")]
    );
    let audiences = "audiences = [\"https://api.example.org\"]";
    assert_eq!(
        errors(audiences, "audiences = []"),
        [format!("{at}.audiences: a jwt keyring must name whom its tokens are for; list at least one audience")]
    );
    assert_eq!(
        errors(audiences, "audiences = ['a', 'claviger:prod', '', 'a']"),
        [
            format!("{at}.audiences: \"claviger:prod\" is Claviger's own audience: whoever may sign could mint an operator; remove it"),
            format!("{at}.audiences[2]: is empty or holds a control character; write a name"),
            format!("{at}.audiences[3]: \"a\" stands here twice; remove one"),
        ]
    );
    assert_eq!(
        errors("required = [\"sub\", \"tenant\"]", "required = ['secret']"),
        [format!("{at}.required: \"secret\" is forbidden too; remove it from one of the lists")]
    );
    assert_eq!(
        errors("subject_pattern = \"user-*\"", "subject_pattern = ''"),
        [format!("{at}.subject_pattern: is not a pattern; a pattern has 1 to 256 bytes; * stands for any run of characters")]
    );
    assert_eq!(
        errors("max_bytes = 6144", "max_bytes = 65537"),
        [format!("{at}.max_bytes: 65537 is out of bounds; write a number from 1 to 65536")]
    );
}

#[test]
fn an_audience_of_our_own_can_be_chosen() {
    let text = with("audience = \"claviger:prod\"", "audience = 'https://api.example.org'");
    assert_eq!(
        errors_of(&text),
        [
            "keyring.access-tokens.profile.audiences: \"https://api.example.org\" is Claviger's own audience: whoever may sign could mint an \
          operator; remove it"
        ]
    );
    assert_eq!(
        errors("audience = \"claviger:prod\"", "audience = ''"),
        ["audience: \"\" is not an audience; write 1 to 256 printable ASCII characters without spaces, or leave it out"]
    );
}

#[test]
fn two_keyrings_of_an_issuer_cannot_be_confused() {
    assert_eq!(
        errors_of(&second_keyring("typ = 'AT+jwt', audiences = ['x', 'https://api.example.org']")),
        ["keyring.id.profile.typ: keyring access-tokens of the same issuer has this typ too, and shares the audience \
          \"https://api.example.org\"; give one of them another typ, or audiences of its own (RFC 8725 section 3.12)"]
    );
    for right in ["typ = 'JWT', audiences = ['https://api.example.org']", "typ = 'at+jwt', audiences = ['x']"] {
        let config = parse(&second_keyring(right)).expect(right);
        assert_eq!(config.keyrings_of("main").count(), 2);
    }
}

#[test]
fn a_timing_that_cannot_hold_names_inequality_numbers_and_the_way_out() {
    let at = "keyring.access-tokens";
    assert_eq!(
        errors("token_ttl = \"15m\"", "rotate_every = '20m'\nmax_exposure = '10m'\nclock_skew = '500ms'"),
        [
            format!(
                "{at}.rotate_every: I5: rotate_every (20m) must be at least D + e + G = 15m 10s + 1s + 10m = 25m 11s once all \
                 settings are within their bounds; raise rotate_every to 25m 11s, or lower provisioning_budget to 4m 49s"
            ),
            format!(
                "{at}.max_exposure: I4: max_exposure (10m) must be at least D + e = 15m 10s + 1s = 15m 11s once all settings are \
                 within their bounds; raise max_exposure to 15m 11s, or lower verifier_poll to 4m 49s"
            ),
            format!("{at}.clock_skew: I1: clock_skew (500ms) must be at least 1s; raise clock_skew to 1s"),
        ]
    );
    assert_eq!(
        errors_of(&EXAMPLE.replace("verify_within = \"15m\"", "verify_within = '0s'")),
        ["keyring.webhooks.verify_within: I2: verify_within (0s) must be at least 1s; raise verify_within to 1s"]
    );
    assert_eq!(
        errors("token_ttl = \"15m\"", "destroy_after = '36501d'"),
        [format!("{at}.destroy_after: I8: no setting may be longer than 36500d, destroy_after is 36501d; lower destroy_after to 36500d")]
    );
}

#[test]
fn a_set_of_keys_stays_small() {
    let own = errors("token_ttl = \"15m\"", "token_ttl = '30d'\nrotate_every = '6h'");
    assert_eq!(
        own,
        [
            "keyring.access-tokens.rotate_every: I6: keyring/access-tokens would hold 2 x 1 keyrings + 121 rotations within Q + T + 2e + one \
          tick = 123 keys, at most 100 are allowed; raise rotate_every to 7h 20m 49s 715ms where it is shorter"
        ]
    );
    // Each fits alone, and together they do not. 15d 1m 12s / 48 = 7h 30m 1s 500ms: whoever rotates less often has at most 48 in the overlap.
    let second =
        second_keyring("typ = 'JWT', audiences = ['x']").replace("[keyring.id]", "[keyring.id]\ntoken_ttl = '15d'\nrotate_every = '6h'");
    let both = second.replace("token_ttl = \"15m\"", "token_ttl = '15d'\nrotate_every = '6h'");
    assert_eq!(
        errors_of(&both),
        [
            "issuer.main: I6: issuer/main would hold 2 x 2 keyrings + 122 rotations within Q + T + 2e + one tick = 126 keys, at most 100 are \
          allowed; raise rotate_every to 7h 30m 1s 501ms where it is shorter"
        ]
    );
    assert!(parse(&second).is_ok());
}

#[test]
fn a_standby_keystore_is_another_one_that_there_is() {
    let setting = "standby_keystore = \"kms\"";
    assert_eq!(example().effective().keyrings["access-tokens"].standby_keystore.as_deref(), Some("kms"));
    let unknown = errors(setting, "standby_keystore = \"other\"");
    let expected = "keyring.access-tokens.standby_keystore: there is no keystore \"other\"; known are hsm, kms";
    assert!(unknown.len() == 1 && unknown[0].starts_with(expected), "{unknown:?}");
    assert_eq!(
        errors(setting, "standby_keystore = \"hsm\""),
        [
            "keyring.access-tokens.standby_keystore: is its keystore: what loses one key there loses the other too; name another keystore, or remove it"
        ]
    );
}
