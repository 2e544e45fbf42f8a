//! The settings of an AWS account as a keystore.
//!
//! In scope: which account and region, and how much may be asked of them. Out of scope: calling AWS, and credentials: they come by the SDK's chain or from
//! a profile, never from this file.

use std::time::Duration;

use super::super::error::{Place, Problems};
use super::super::limits;
use super::super::names;
use super::super::raw::RawKeystore;
use crate::keystore::aws_kms::{AwsKmsSettings, DEFAULT_DELETION_WINDOW, DEFAULT_REQUESTS_PER_SECOND, LEAST_DELETION_WINDOW};

/// The settings that such a keystore has beside its type.
pub(super) const SETTINGS: &[&str] =
    &["region", "account", "endpoint", "sts_endpoint", "profile", "deletion_window", "requests_per_second"];
const DAY: Duration = Duration::from_hours(24);
/// More than any account may ask for, whatever AWS raised its quota to.
const MOST_REQUESTS_PER_SECOND: i64 = 100_000;

/// Reads one.
pub(super) fn read(raw: &RawKeystore, at: &Place, problems: &mut Problems<'_>) -> Option<AwsKmsSettings> {
    let region = region(raw.region.as_deref(), &at.key("region"), problems);
    let account = account(raw.account.as_deref(), &at.key("account"), problems);
    let endpoint = url(raw.endpoint.as_deref(), &at.key("endpoint"), problems);
    let sts_endpoint = url(raw.sts_endpoint.as_deref(), &at.key("sts_endpoint"), problems);
    let most = DEFAULT_REQUESTS_PER_SECOND;
    let place = at.key("requests_per_second");
    let requests_per_second = names::number(raw.requests_per_second, (1, MOST_REQUESTS_PER_SECOND), most, &place, problems);
    if raw.profile.as_deref().is_some_and(|profile| profile.trim().is_empty()) {
        problems.add(&at.key("profile"), "is empty", "name a profile of the shared AWS configuration, or take it out");
    }
    let deletion_window = deletion_window(raw, at, problems);
    let profile = raw.profile.clone();
    Some(AwsKmsSettings { region: region?, account: account?, endpoint, sts_endpoint, profile, deletion_window, requests_per_second })
}

/// Whether both are one account in one region, asked at one address.
pub(super) fn is_same_place(one: &AwsKmsSettings, other: &AwsKmsSettings) -> bool {
    (&one.region, &one.account, &one.endpoint) == (&other.region, &other.account, &other.endpoint)
}

fn region(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.required(text, place, "write the region, such as \"eu-central-1\": the environment's is not asked")?;
    let well_formed = text.len() <= 32 && text.contains('-') && names::is_host(text);
    if !well_formed {
        problems.add(place, "is not a region", "write one such as \"eu-central-1\"");
    }
    well_formed.then(|| text.to_owned())
}

fn account(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let remedy = "write the number of the account, 12 digits in quotes: credentials of another one are refused";
    let text = problems.required(text, place, remedy)?;
    let well_formed = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    if !well_formed {
        problems.add(place, "is not the number of an AWS account", remedy);
    }
    well_formed.then(|| text.to_owned())
}

/// Where AWS's own address is not used.
fn url(text: Option<&str>, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let text = text?;
    if let Some(defect) = names::issuer_url_defect(text) {
        problems.add(place, defect, "write a URL such as \"https://vpce-0123.kms.eu-central-1.vpce.amazonaws.com\", or take it out");
        return None;
    }
    Some(text.to_owned())
}

/// KMS counts whole days.
fn deletion_window(raw: &RawKeystore, at: &Place, problems: &mut Problems<'_>) -> u8 {
    let days = |days: u8| DAY * u32::from(days);
    let place = at.key("deletion_window");
    let bounds = (days(LEAST_DELETION_WINDOW), days(DEFAULT_DELETION_WINDOW));
    let span = limits::time(raw.deletion_window, bounds, days(DEFAULT_DELETION_WINDOW), &place, problems);
    let whole = span.as_secs() / DAY.as_secs();
    if span != DAY * u32::try_from(whole).unwrap_or(0) {
        problems.add(&place, "is not a number of whole days", "write days, such as \"30d\"");
    }
    u8::try_from(whole).unwrap_or(DEFAULT_DELETION_WINDOW)
}
