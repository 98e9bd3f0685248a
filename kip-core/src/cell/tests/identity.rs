//! What a cell is given at boot.

use jiff::Timestamp;
use proptest::prelude::*;

use super::agent::{authority, boot_config, boot_request};
use crate::cell::{BootOptions, CellAuthority};
use crate::error::ErrorKind;
use crate::ids::{CellName, LaunchToken, NodeName, PodUid};
use crate::provider::UserData;
use crate::runtime::{BootRequest, PodRuntime as _};

fn requests() -> impl Strategy<Value = BootRequest> {
    (
        "[a-z]([a-z0-9-]{0,60}[a-z0-9])?",
        "[ -~]{1,63}",
        "[0-9a-f]{40}",
        0_i64..4_000_000_000,
        0_i32..1_000_000_000,
    )
        .prop_map(|(cell, node, token, second, nanosecond)| BootRequest {
            cell: CellName::new(cell),
            node: NodeName::new(node),
            pod: PodUid::new("9f6c0e5c-0000-4000-8000-000000000000"),
            token: LaunchToken::from_stored(token),
            issued_at: Timestamp::new(second + 1000, nanosecond).unwrap(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Clouds refuse a repeated token with other bytes: a retried launch would fail for good.
    #[test]
    fn equal_requests_have_equal_user_data_even_from_another_controller(request in requests()) {
        let first = authority();
        let second = CellAuthority::from_pem(first.certificate_pem(), &first.private_key_pem()).unwrap();
        let user_data = first.user_data(&request, &BootOptions::default()).unwrap();
        prop_assert_eq!(second.user_data(&request, &BootOptions::default()).unwrap(), user_data.clone());
        prop_assert!(user_data.as_bytes().len() <= UserData::MAX_BYTES);
        let config = boot_config(&user_data);
        prop_assert_eq!(config.cell, request.cell.as_str());
        prop_assert_eq!(config.listen, "0.0.0.0:6421");
    }
}

/// Cells that shared a key could pass for each other.
#[test]
fn every_launch_and_every_authority_has_its_own_key() {
    let authority = authority();
    let key = |authority: &CellAuthority, token: &str| {
        boot_config(
            &authority
                .user_data(&boot_request(token), &BootOptions::default())
                .unwrap(),
        )
        .private_key_pem
    };
    let first = key(&authority, "aaaaaaaaaaaaaaaa");
    assert_ne!(first, key(&authority, "aaaaaaaaaaaaaaab"));
    assert_ne!(first, key(&super::agent::authority(), "aaaaaaaaaaaaaaaa"));
}

/// The Secret may have been edited by hand: say what is wrong with it, and never what is in it.
#[test]
fn a_damaged_authority_is_explained_without_showing_the_key() {
    let (one, other) = (authority(), authority());
    let key = one.private_key_pem();
    let cell = boot_config(
        &one.user_data(&boot_request("a"), &BootOptions::default())
            .unwrap(),
    );
    for (certificate, key, hint) in [
        (
            one.certificate_pem(),
            other.private_key_pem().as_str(),
            "does not belong",
        ),
        (one.certificate_pem(), "garbage", "not an Ed25519 key"),
        ("garbage", key.as_str(), "certificate is not PEM"),
        (
            cell.certificate_pem.as_str(),
            cell.private_key_pem.as_str(),
            "not a certificate authority's",
        ),
    ] {
        let error = CellAuthority::from_pem(certificate, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        assert!(error.message().contains(hint), "{error}");
        assert!(
            !format!("{error:?}").contains(key.lines().nth(1).unwrap_or("-----")),
            "{error:?}"
        );
    }
    assert_eq!(format!("{one:?}"), "CellAuthority { .. }");
}

/// An agent that is not told where to look hears of no interruption.
#[test]
fn a_cell_is_told_where_its_cloud_announces_what_it_will_do() {
    let authority = authority();
    let request = boot_request("aaaaaaaaaaaaaaaa");
    let told = |options: &BootOptions| boot_config(&authority.user_data(&request, options).unwrap()).metadata;
    let mut options = BootOptions::default();
    assert_eq!(told(&options), None);
    options.metadata = Some(crate::cell::MetadataService::ec2());
    assert_eq!(told(&options), options.metadata);
}

#[test]
fn a_name_that_is_no_dns_name_is_refused_before_anything_is_launched() {
    let runtime = crate::cell::CellRuntime::new(authority());
    let mut request = boot_request("a");
    request.cell = CellName::new("zelle-ä");
    assert!(runtime.user_data(&request).is_err());
}
