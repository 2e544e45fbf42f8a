//! URIs: the RFC's own examples, every refusal, and what holds of any text.

use proptest::option;
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<TokenUri, String> {
    text.parse().map_err(|error: BadTokenSelector| error.to_string())
}

fn token(label: Option<&str>, serial: Option<&str>, manufacturer: Option<&str>, model: Option<&str>) -> TokenSelector {
    let own = |text: Option<&str>| text.map(str::to_owned);
    TokenSelector { label: own(label), serial: own(serial), manufacturer: own(manufacturer), model: own(model) }
}

fn uri(token: TokenSelector, module_path: Option<&str>, pin_source: Option<&str>) -> TokenUri {
    TokenUri { token, module_path: module_path.map(str::to_owned), pin_source: pin_source.map(str::to_owned) }
}

/// RFC 7512 section 3, as far as the examples name a token; the attributes that name a key or a slot are left out of them.
#[test]
fn the_examples_of_the_rfc_are_read() {
    let golden = [
        (
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=?pin-source=file:/etc/token_pin",
            uri(
                token(Some("The Software PKCS#11 Softtoken"), Some(""), Some("Snake Oil, Inc."), Some("1.0")),
                None,
                Some("/etc/token_pin"),
            ),
        ),
        (
            "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-source=file:/etc/token",
            uri(token(Some("Software PKCS#11 softtoken"), None, Some("Snake Oil, Inc."), None), None, Some("/etc/token")),
        ),
        (
            "pkcs11:token=my%20token%25%20created%20by%20Joe;serial=1",
            uri(token(Some("my token% created by Joe"), Some("1"), None, None), None, None),
        ),
        (
            "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B",
            uri(token(Some("A name with a substring %;"), None, None, None), None, None),
        ),
        ("pkcs11:token=Name%20with%20a%20small%20A%20%C3%A1", uri(token(Some("Name with a small A á"), None, None, None), None, None)),
    ];
    for (text, expected) in golden {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

/// The same section: what names an object, a slot or a library, or holds a PIN, is no token for a configuration.
#[test]
fn the_other_examples_of_the_rfc_are_refused_with_the_reason() {
    let golden = [
        ("pkcs11:", "names no token"),
        ("pkcs11:object=my-pubkey;type=public", "attribute 1 of the URI's path names a key"),
        ("pkcs11:object=my-key;type=private?pin-source=file:/etc/token", "attribute 1 of the URI's path names a key"),
        ("pkcs11:slot-description=Sun%20Metaslot", "attribute 1 of the URI's path names a slot"),
        (
            "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;library-version=1.23",
            "describes a module",
        ),
        ("pkcs11:token=a;object=my-sign-key;type=private?module-name=mypkcs11", "attribute 2 of the URI's path names a key"),
        ("pkcs11:token=a?module-name=mypkcs11", "attribute 1 of the URI's query is a module's name"),
        ("pkcs11:token=Software%20PKCS%2311%20softtoken;type=private;object=my-key?pin-value=the-pin", "holds a pin-value"),
        ("pkcs11:token=a;vendor-aaa=value-a?pin-source=/a", "attribute 2 of the URI's path is not known"),
        ("pkcs11:token=a?vendor-bbb=value-b", "attribute 1 of the URI's query is not known"),
    ];
    for (text, expected) in golden {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn every_refusal_says_what_and_where() {
    let table = [
        ("softtoken", "does not begin with the scheme"),
        ("pkcs11:;token=a", "attribute 1 of the URI's path is not of the form name=value"),
        ("pkcs11:token=a;", "attribute 2 of the URI's path is not of the form name=value"),
        ("pkcs11:token", "attribute 1 of the URI's path is not of the form name=value"),
        ("pkcs11:=a", "attribute 1 of the URI's path is not of the form name=value"),
        ("pkcs11:to%6ben=a", "attribute 1 of the URI's path is not of the form name=value"),
        ("pkcs11:Token=a", "attribute 1 of the URI's path is not known"),
        ("pkcs11:token=a;serial=1;token=a", "attribute 3 of the URI's path stands there twice"),
        ("pkcs11:token=a?module-path=/a&module-path=/a", "attribute 2 of the URI's query stands there twice"),
        ("pkcs11:token=a?pin-source=/a&pin-source=/b", "attribute 2 of the URI's query stands there twice"),
        ("pkcs11:slot-id=0", "names a slot; say token or serial: slots move"),
        ("pkcs11:token=a;slot-manufacturer=b", "attribute 2 of the URI's path names a slot"),
        ("pkcs11:token=a;id=%00", "attribute 2 of the URI's path names a key"),
        ("pkcs11:token=a;module-path=%2Fa", "belongs into the query"),
        ("pkcs11:?token=a", "belongs into the path"),
        ("pkcs11:?module-path=/a", "names no token"),
        ("pkcs11:token=%", "has a % without two hex digits"),
        ("pkcs11:token=%4", "has a % without two hex digits"),
        ("pkcs11:token=%+4", "has a % without two hex digits"),
        ("pkcs11:token=%4g", "has a % without two hex digits"),
        ("pkcs11:token=a b", "has a character that may not stand there"),
        ("pkcs11:token=a/b", "has a character that may not stand there"),
        ("pkcs11:token=a|b", "has a character that may not stand there"),
        ("pkcs11:token=a#b", "has a character that may not stand there"),
        ("pkcs11:token=a\"b", "has a character that may not stand there"),
        ("pkcs11:token=ä", "has a character that may not stand there"),
        ("pkcs11:token=%ff", "is not UTF-8"),
        ("pkcs11:token=%C3", "is not UTF-8"),
        ("pkcs11:token=%ed%a0%80", "is not UTF-8"),
        ("pkcs11:token=0123456789abcdef0123456789abcdef0", "label has more than 32 bytes"),
        ("pkcs11:serial=0123456789abcdef0", "serial number has more than 16 bytes"),
        ("pkcs11:manufacturer=0123456789abcdef0123456789abcdef0", "manufacturer has more than 32 bytes"),
        ("pkcs11:model=0123456789abcdef0", "model has more than 16 bytes"),
        ("pkcs11:token=a%20", "label ends with a blank"),
        ("pkcs11:token=", "names no token"),
        ("pkcs11:model=;serial=", "names no token"),
        ("pkcs11:token=a?module-path=lib.so", "is not an absolute path"),
        ("pkcs11:token=a?module-path=", "is not an absolute path"),
        ("pkcs11:token=a?module-path=/a%00b", "is not an absolute path"),
        ("pkcs11:token=a?pin-source=%7C/bin/pin", "names a command"),
        ("pkcs11:token=a?pin-source=|/bin/pin", "names a command"),
        ("pkcs11:token=a?pin-source=pin", "is not a file"),
        ("pkcs11:token=a?pin-source=", "is not a file"),
        ("pkcs11:token=a?pin-source=https://a/pin", "is not a file"),
        ("pkcs11:token=a?pin-source=file:pin", "is not a file of this machine"),
        ("pkcs11:token=a?pin-source=file://host/pin", "is not a file of this machine"),
        ("pkcs11:token=a?pin-source=file:/a%2520b", "has a file URI with %, ? or #"),
        ("pkcs11:token=a?module-path=/a?b&x", "attribute 2 of the URI's query is not of the form name=value"),
    ];
    for (text, expected) in table {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("; "), "it says what to do: {error}");
    }
}

#[test]
fn what_is_allowed_is_read() {
    let label = |text: &str| token(Some(text), None, None, None);
    let golden = [
        ("PKCS11:token=a", uri(label("a"), None, None)),
        ("pkcs11:token=a?", uri(label("a"), None, None)),
        ("pkcs11:token=:[]@!$'()*+,=&-._~", uri(label(":[]@!$'()*+,=&-._~"), None, None)),
        ("pkcs11:token=%c3%A4%7e", uri(label("ä~"), None, None)),
        ("pkcs11:model=SoftHSM%20v2;token=%20a", uri(token(Some(" a"), None, None, Some("SoftHSM v2")), None, None)),
        ("pkcs11:serial=1?module-path=/a/b%26c?|d=", uri(token(None, Some("1"), None, None), Some("/a/b&c?|d="), None)),
        ("pkcs11:token=a?pin-source=file:///etc/pin", uri(label("a"), None, Some("/etc/pin"))),
        ("pkcs11:token=a?pin-source=FILE://localhost/etc/pin", uri(label("a"), None, Some("/etc/pin"))),
        ("pkcs11:token=a?pin-source=/run/a%20pin%2525&module-path=/m", uri(label("a"), Some("/m"), Some("/run/a pin%25"))),
        ("pkcs11:token=pin-value?pin-source=/run/pin-value", uri(label("pin-value"), None, Some("/run/pin-value"))),
    ];
    for (text, expected) in golden {
        assert_eq!(parse(text), Ok(expected.clone()), "{text}");
        assert_eq!(parse(&expected.to_string()), Ok(expected));
    }
}

const SECRET: &str = "S3CR3T";

#[test]
fn a_pin_is_refused_first_and_never_repeated() {
    for text in [
        "pkcs11:token=a?pin-value=S3CR3T",
        "pkcs11:?pin-value=S3CR3T",
        "pkcs11:pin-value=S3CR3T",
        "pkcs11:token=a;pin-value=S3CR3T",
        "pkcs11:token=a?PIN-VALUE=S3CR3T",
        "pkcs11:token=a?pin_value=S3CR3T",
        "pkcs11:token=a?pin-value:S3CR3T",
        "pkcs11:token=a?pin-value%3DS3CR3T",
        "pkcs11:token=%zz;;?pin-value=S3CR3T&pin-value=S3CR3T",
        "pkcs11:token=ä? pin-value=S3CR3T",
        "pkcs11:slot-id=0?module-path=x&pin-value=S3CR3T",
        "token=a?pin-value=S3CR3T",
        "pin-value=S3CR3T",
    ] {
        let error = text.parse::<TokenUri>().unwrap_err();
        assert!(error.to_string().starts_with("holds a pin-value"), "{error}");
        assert!(!error.to_string().contains(SECRET) && !format!("{error:?}").contains(SECRET), "{error:?}");
    }
    // Where nothing tells that it is a PIN, nothing is repeated either.
    for text in
        ["pkcs11:S3CR3T", "pkcs11:S3CR3T=1", "pkcs11:token=a?S3CR3T", "pkcs11:token=a?pin=S3CR3T", "pkcs11:token=a?pin%2dvalue=S3CR3T"]
    {
        let error = text.parse::<TokenUri>().unwrap_err();
        assert!(!error.to_string().contains(SECRET) && !format!("{error:?}").contains(SECRET), "{error:?}");
    }
}

/// A text of at most so many bytes, without a blank at its end.
fn text(longest: usize) -> impl Strategy<Value = String> {
    any::<String>().prop_map(move |text| {
        let mut end = text.len().min(longest);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].trim_end().to_owned()
    })
}

fn path() -> impl Strategy<Value = String> {
    ("/[^/\0]", any::<String>()).prop_map(|(start, rest)| start + &rest.replace('\0', ""))
}

fn any_uri() -> impl Strategy<Value = TokenUri> {
    let names = (option::of(text(32)), option::of(text(16)), option::of(text(32)), option::of(text(16)));
    let named = names.prop_map(|(label, serial, manufacturer, model)| TokenSelector { label, serial, manufacturer, model });
    let selects = named.prop_filter("it names a token", |token| token.check().is_ok());
    (selects, option::of(path()), option::of(path())).prop_map(|(token, module_path, pin_source)| TokenUri {
        token,
        module_path,
        pin_source,
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), rest in "[a-z:;?&=%0-9/ -]{0,40}") {
        let _ = text.parse::<TokenUri>();
        let _ = format!("pkcs11:{text}").parse::<TokenUri>();
        let _ = format!("pkcs11:{rest}").parse::<TokenUri>();
    }

    #[test]
    fn what_is_written_is_read_again(uri in any_uri()) {
        let written = uri.to_string();
        prop_assert_eq!(written.parse::<TokenUri>(), Ok(uri), "{}", written);
    }

    /// Cut, joined and mangled as it may be: what stood in a `pin-value` is in no answer.
    #[test]
    fn no_error_holds_a_secret(before in "(pkcs11:)?[a-z;=%?&-]{0,24}", between in "[;?&]", sign in "(=|%3d|:|==)", after in "[ -~]{0,16}") {
        let text = format!("{before}{between}pin-value{sign}{SECRET}{after}");
        let error = text.parse::<TokenUri>().expect_err("always refused");
        prop_assert!(error.to_string().starts_with("holds a pin-value"), "{}", error);
        let said = format!("{error:?} {error}");
        prop_assert!(!said.contains(SECRET), "{}", said);
        let selector = text.parse::<TokenSelector>().expect_err("always refused");
        let said = format!("{selector:?} {selector}");
        prop_assert!(!said.contains(SECRET), "{}", said);
    }
}
