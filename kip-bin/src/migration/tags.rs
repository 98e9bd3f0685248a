//! What tags say whose an instance is.

use kip_core::provider::tags;

use super::{quoted, section};

#[test]
fn a_tag_that_the_page_names_is_one_that_launches_have() {
    let real = [
        tags::CLUSTER,
        tags::NODE,
        tags::POD_UID,
        tags::POD,
        tags::CELL,
        tags::ATTEMPT,
        tags::TOKEN,
    ];
    let mut named: Vec<&str> = section("Tags of instances")
        .flat_map(quoted)
        .filter(|text| text.starts_with("kip.elotl.co/"))
        .collect();
    named.sort_unstable();
    let mut expected = real.to_vec();
    expected.sort_unstable();
    assert_eq!(named, expected);
}
