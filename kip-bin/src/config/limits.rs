//! `cloud.aws.requestLimits`: how many calls Kip may make, where others share the account's quota.

use kip_core::driver::{RequestLimit, RequestLimits};
use serde::Serialize;

use super::document::Section;

/// The most calls, by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    launch: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminate: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Limit {
    per_second: f64,
    burst: f64,
}

impl Limits {
    /// Whether nothing is limited.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the driver is told.
    pub(crate) fn of_driver(&self) -> RequestLimits {
        let limit = |limit: Option<Limit>| {
            limit.map(|limit| RequestLimit {
                per_second: limit.per_second,
                burst: limit.burst,
            })
        };
        let mut limits = RequestLimits::default();
        limits.launch = limit(self.launch);
        limits.terminate = limit(self.terminate);
        limits.read = limit(self.read);
        limits
    }
}

/// Reads the section.
pub(super) fn read(section: Section<'_>) -> Limits {
    let limits = Limits {
        launch: one(section.section_if_present("launch")),
        terminate: one(section.section_if_present("terminate")),
        read: one(section.section_if_present("read")),
    };
    section.finish();
    limits
}

/// A bucket that nothing is said of holds as much as it is refilled by in a second.
fn one(section: Option<Section<'_>>) -> Option<Limit> {
    let section = section?;
    let number = |key: &'static str| {
        let text = section.text(key)?;
        let number = text.parse::<f64>().ok();
        let number = number.filter(|number| number.is_finite() && (0.01..=10_000.0).contains(number));
        if number.is_none() {
            section.problem(key, format!("`{text}` is no number of calls from 0.01 to 10000"));
        }
        number
    };
    let (per_second, burst) = (number("perSecond"), number("burst"));
    if !section.has("perSecond") {
        section.problem("perSecond", "is required: how many calls a second");
    }
    section.finish();
    per_second.map(|per_second| Limit {
        per_second,
        burst: burst.unwrap_or(per_second).max(1.0),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{Cloud, parse};

    fn file(limits: &str) -> String {
        format!(
            "cloud: {{aws: {{region: us-east-1, requestLimits: {limits}}}}}\ncells: {{bootImageSpec: {{imageIDs: ami-1}}}}\n"
        )
    }

    #[test]
    fn limits_reach_the_driver_and_mistakes_are_told_where_they_were_written() {
        let loaded = parse(
            &file("{launch: {perSecond: 2, burst: 5}, read: {perSecond: 0.5}}"),
            "f",
        )
        .unwrap();
        let Cloud::Aws(aws) = &loaded.config.cloud else {
            panic!("{:?}", loaded.config.cloud);
        };
        let limits = aws.request_limits.of_driver();
        let launch = limits.launch.unwrap();
        assert_eq!((launch.per_second, launch.burst), (2.0, 5.0));
        let read = limits.read.unwrap();
        assert_eq!((read.per_second, read.burst), (0.5, 1.0));
        assert_eq!(limits.terminate, None);
        for (text, path) in [
            (
                "{launch: {perSecond: many}}",
                "cloud.aws.requestLimits.launch.perSecond",
            ),
            ("{read: {perSecond: 0}}", "cloud.aws.requestLimits.read.perSecond"),
            ("{read: {burst: 3}}", "cloud.aws.requestLimits.read.perSecond"),
            ("{write: {perSecond: 1}}", "cloud.aws.requestLimits.write"),
        ] {
            let problems = parse(&file(text), "f").unwrap_err();
            assert!(
                problems.list.iter().any(|problem| problem.path == path),
                "{text}: {:?}",
                problems.list
            );
        }
    }
}
