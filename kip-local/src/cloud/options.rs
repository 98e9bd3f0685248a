//! What a launch may ask for that one machine does not have.

use kip_core::error::{Error, ErrorKind, Result};
use kip_core::model::LaunchOptions;

/// Refuses what would be ignored: whoever asks for a security group must not get a cell without it.
pub(super) fn check(options: &LaunchOptions) -> Result<()> {
    let asked = [
        (
            !options.security_groups.is_empty(),
            "security groups (pod.elotl.co/security-groups)",
        ),
        (
            options.identity.is_some(),
            "instance profiles (pod.elotl.co/instance-profile)",
        ),
        (
            !options.routes.is_empty(),
            "cloud routes (pod.elotl.co/cloud-route)",
        ),
        (options.dedicated, "dedicated hardware (pod.elotl.co/launch-type)"),
    ];
    let missing: Vec<&str> = asked
        .into_iter()
        .filter_map(|(is_asked, what)| is_asked.then_some(what))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "one machine as a cloud has no {}; remove the annotation, or run the pod on a cloud that has them",
        missing.join(" and no ")
    );
    Err(Error::new(ErrorKind::InvalidRequest, "launch", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_cloud_lacks_is_refused_by_the_annotation_s_name_and_the_rest_is_not() {
        let mut options = LaunchOptions::default();
        options.private_address_only = true;
        assert!(check(&options).is_ok(), "every address here is private");
        options.security_groups = ["sg-1".to_owned()].into();
        options.identity = Some("web".to_owned());
        let error = check(&options).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let text = error.to_string();
        for part in ["pod.elotl.co/security-groups", "pod.elotl.co/instance-profile"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
