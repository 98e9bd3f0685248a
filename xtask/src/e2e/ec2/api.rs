//! EC2's query protocol by curl: what a user's own `aws ec2` would do behind Kip's back, and a look at what there is.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::command::{cmd, outcome};

/// The key of who works for the cloud: the fake EC2 lets nothing go wrong for them, and their calls are not Kip's.
pub(super) const KEY: &str = "AKIAHYPERVISOR";

/// An instance as EC2 shows it.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) instance_type: String,
    pub(crate) zone: String,
    pub(crate) state: String,
    pub(crate) tags: BTreeMap<String, String>,
}

/// Calls an action and returns the XML it answers.
pub(super) fn call(url: &str, action: &str, params: &[(&str, &str)]) -> Result<String> {
    let mut curl = cmd("curl", ["--silent", "--show-error", "--max-time", "30"]);
    // An emulator looks at key and region, and at no signature.
    curl.arg("--header").arg(format!(
        "Authorization: AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0"
    ));
    curl.args(["--data-urlencode", &format!("Action={action}")])
        .args(["--data-urlencode", "Version=2016-11-15"]);
    for (name, value) in params {
        curl.args(["--data-urlencode", &format!("{name}={value}")]);
    }
    let output = outcome(curl.args(["--write-out", "%{http_code}"]).arg(format!("{url}/")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.strip_suffix("200") {
        Some(xml) if output.status.success() => Ok(xml.to_owned()),
        _ => bail!("{action}: {text} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// All instances, those included that have ended and are still shown.
pub(super) fn instances(url: &str) -> Result<Vec<Instance>> {
    let xml = call(url, "DescribeInstances", &[])?;
    // Each begins with its id.
    xml.split("<instancesSet>")
        .skip(1)
        .filter(|part| part.contains("<instanceId>"))
        .map(|part| {
            let one = |element: &str| {
                text(part, element).with_context(|| format!("an instance without {element}: {part}"))
            };
            let state = inside(part, "instanceState").context("an instance without a state")?;
            let tags = inside(part, "tagSet").unwrap_or_default();
            Ok(Instance {
                id: one("instanceId")?,
                instance_type: one("instanceType")?,
                zone: one("availabilityZone")?,
                state: text(state, "name").context("a state without a name")?,
                tags: tags
                    .split("<item>")
                    .filter_map(|item| Some((text(item, "key")?, text(item, "value")?)))
                    .collect(),
            })
        })
        .collect()
}

/// The text of the first element of that name.
pub(super) fn text(xml: &str, element: &str) -> Option<String> {
    inside(xml, element).map(str::to_owned)
}

fn inside<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{element}>"))?;
    Some(rest.split_once(&format!("</{element}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_or_what_ec2_shows_would_be_misread() {
        let xml = "<a><tagSet><item><key>k</key><value>v</value></item></tagSet><b>x</b></a>";
        assert_eq!(text(xml, "b").as_deref(), Some("x"));
        assert_eq!(
            inside(xml, "tagSet")
                .and_then(|tags| text(tags, "value"))
                .as_deref(),
            Some("v")
        );
        assert_eq!(text(xml, "c"), None);
    }
}
