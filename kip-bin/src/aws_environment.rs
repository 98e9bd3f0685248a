//! What environment and configuration both say of AWS. The old Kip took the environment's word, the AWS SDK takes ours: where they
//! differ nothing is guessed, for instances in the wrong region or account cost money where nobody looks.

use secrecy::{ExposeSecret as _, SecretString};

use crate::config::Cloud;

/// The variables.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct AwsEnvironment {
    #[arg(long = "env-aws-default-region", hide = true, env = "AWS_DEFAULT_REGION")]
    default_region: Option<String>,
    #[arg(long = "env-aws-region", hide = true, env = "AWS_REGION")]
    region: Option<String>,
    #[arg(long = "env-aws-access-key-id", hide = true, env = "AWS_ACCESS_KEY_ID")]
    access_key_id: Option<SecretString>,
}

impl AwsEnvironment {
    /// The region it names.
    pub(crate) fn region(&self) -> Option<&str> {
        self.default_region.as_deref().or(self.region.as_deref())
    }

    /// Where it contradicts the configuration or itself, each with what to do. Nothing where the cloud is another one.
    pub(crate) fn contradictions(&self, cloud: &Cloud) -> Vec<String> {
        let Cloud::Aws(aws) = cloud else { return Vec::new() };
        let regions = [
            ("AWS_DEFAULT_REGION", self.default_region.as_deref()),
            ("AWS_REGION", self.region.as_deref()),
            ("cloud.aws.region", aws.region.as_deref()),
        ];
        let mut problems: Vec<String> = differing(&regions).into_iter().collect();
        let keys = (&self.access_key_id, &aws.access_key_id);
        if let (Some(environments), Some(files)) = keys
            && environments.expose_secret() != files.expose_secret()
        {
            problems.push(
                "AWS_ACCESS_KEY_ID and cloud.aws.accessKeyID are different keys; the old Kip took the environment's: remove one"
                    .to_owned(),
            );
        }
        problems
    }
}

/// What to say when not all that say something say the same.
fn differing(said: &[(&str, Option<&str>)]) -> Option<String> {
    let said: Vec<(&str, &str)> = said
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)))
        .collect();
    if said
        .windows(2)
        .all(|two| matches!(two, [(_, a), (_, b)] if a == b))
    {
        return None;
    }
    let said: Vec<String> = said
        .iter()
        .map(|(name, value)| format!("{name} says {value}"))
        .collect();
    Some(format!(
        "the region is not clear: {}; the old Kip took the first of these: make them agree, or remove all but one",
        said.join(", ")
    ))
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::parse;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        aws: AwsEnvironment,
    }

    fn contradictions(cloud: &str, flags: &[&str]) -> Vec<String> {
        let text = format!("{{cloud: {cloud}, cells: {{bootImageSpec: {{imageIDs: ami-1}}}}}}");
        let loaded = parse(&text, "provider.yaml").expect("a good file");
        let line = Line::try_parse_from([&["kip"], flags].concat()).expect("known flags");
        line.aws.contradictions(&loaded.config.cloud)
    }

    /// The old Kip and this one read them in another order: launching into the other region, nobody would look for the instances.
    #[test]
    fn a_region_or_key_that_is_said_twice_differently_is_asked_about_before_anything_is_launched() {
        let east = "--env-aws-region=us-east-1";
        let west = "--env-aws-default-region=us-west-2";
        for (cloud, flags, expected) in [
            ("{aws: {region: us-east-1}}", vec![], None),
            ("{aws: {}}", vec![east], None),
            ("{aws: {region: us-east-1}}", vec![east], None),
            (
                "{aws: {region: us-east-1}}",
                vec![west],
                Some("AWS_DEFAULT_REGION says us-west-2, cloud.aws.region says us-east-1"),
            ),
            (
                "{aws: {}}",
                vec![west, east],
                Some("AWS_DEFAULT_REGION says us-west-2, AWS_REGION says us-east-1"),
            ),
            (
                "{aws: {region: us-east-1, accessKeyID: AKIA1, secretAccessKey: hush}}",
                vec!["--env-aws-access-key-id=AKIA2"],
                Some("are different keys"),
            ),
            (
                "{aws: {region: us-east-1, accessKeyID: AKIA1, secretAccessKey: hush}}",
                vec!["--env-aws-access-key-id=AKIA1"],
                None,
            ),
            ("{local: {}}", vec![west, east], None),
        ] {
            let found = contradictions(cloud, &flags);
            match expected {
                None => assert_eq!(found, Vec::<String>::new(), "{cloud} {flags:?}"),
                Some(text) => assert!(
                    found.len() == 1 && found[0].contains(text) && !found[0].contains("AKIA"),
                    "{cloud} {flags:?} {found:?}"
                ),
            }
        }
    }
}
