//! What EventBridge's messages say. Pure.

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use kip_core::ids::InstanceId;
use kip_core::model::NoticeKind;
use kip_core::provider::InterruptionNotice;
use serde_json::Value;

/// How long before the interruption its warning is sent. Source: "Spot Instance interruption notices", Amazon EC2 User Guide.
const SPOT_NOTICE: SignedDuration = SignedDuration::from_mins(2);

/// The notices of one message: none when it is of a kind we know and nothing follows. The error says why the message is not for us.
///
/// Source of the formats: "Events from AWS services", Amazon EventBridge User Guide, and the pages each kind links to. `now` stands in for
/// a time that is missing.
pub(super) fn parse(body: &str, now: Timestamp) -> Result<Vec<InterruptionNotice>, String> {
    let event: Value = serde_json::from_str(body).map_err(|error| format!("it is not JSON: {error}"))?;
    let kind = text(&event, "detail-type").ok_or("it has no detail-type")?;
    let detail = event.get("detail").ok_or("it has no detail")?;
    let at = text(&event, "time")
        .and_then(|time| time.parse().ok())
        .unwrap_or(now);
    match kind {
        "EC2 Spot Instance Interruption Warning" => {
            let action = text(detail, "instance-action").unwrap_or("unknown");
            let deadline = at.saturating_add(SPOT_NOTICE).unwrap_or(at);
            let reason = format!("spot interruption, action {action}");
            Ok(vec![InterruptionNotice::new(instance(detail)?, deadline, reason)])
        }
        "EC2 Instance Rebalance Recommendation" => Ok(vec![InterruptionNotice::of_kind(
            NoticeKind::Rebalance,
            instance(detail)?,
            at,
            "EC2 recommends to move: the risk of an interruption is elevated",
        )]),
        "EC2 Instance State-change Notification" => {
            let state = text(detail, "state").ok_or("its detail has no state")?;
            Ok(match state {
                "shutting-down" | "terminated" | "stopping" | "stopped" => {
                    let reason = format!("EC2 says that it is {state}");
                    vec![InterruptionNotice::new(instance(detail)?, at, reason)]
                }
                _ => Vec::new(),
            })
        }
        "AWS Health Event" => health(&event, detail, at),
        other => Err(format!("its detail-type is {other}")),
    }
}

/// Scheduled changes of instances; AWS Health tells of much else.
fn health(event: &Value, detail: &Value, sent: Timestamp) -> Result<Vec<InterruptionNotice>, String> {
    let is = |field: &str, value: &str| text(detail, field) == Some(value);
    if !is("service", "EC2") || !is("eventTypeCategory", "scheduledChange") || is("statusCode", "closed") {
        return Ok(Vec::new());
    }
    let code = text(detail, "eventTypeCode").ok_or("its detail has no eventTypeCode")?;
    let ends = ["_STOP_", "_RETIREMENT_", "_REBOOT_", "_TERMINATION_"];
    let kind = if ends.iter().any(|part| code.contains(part)) {
        NoticeKind::Maintenance
    } else {
        NoticeKind::LiveMaintenance
    };
    // AWS's own example names the wrong day of the week.
    let dates = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let begins = match text(detail, "startTime") {
        Some(time) => dates
            .parse_timestamp(time)
            .map_err(|error| format!("its startTime cannot be read: {error}"))?,
        None => sent,
    };
    let named = |field: &str, pick: fn(&Value) -> Option<&str>| -> Vec<InstanceId> {
        let from = if field == "resources" { event } else { detail };
        let list = from.get(field).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(pick)
            // An ARN ends in the id.
            .map(|name| name.rsplit('/').next().unwrap_or(name))
            .filter(|name| name.starts_with("i-"))
            .map(InstanceId::new)
            .collect()
    };
    let mut instances = named("affectedEntities", |entity| text(entity, "entityValue"));
    if instances.is_empty() {
        instances = named("resources", Value::as_str);
    }
    Ok(instances
        .into_iter()
        .map(|instance| InterruptionNotice::of_kind(kind, instance, begins, code))
        .collect())
}

fn instance(detail: &Value) -> Result<InstanceId, String> {
    let id = text(detail, "instance-id").filter(|id| !id.is_empty());
    id.map(InstanceId::new)
        .ok_or_else(|| "its detail has no instance-id".into())
}

fn text<'a>(from: &'a Value, field: &str) -> Option<&'a str> {
    from.get(field).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "i-1234567890abcdef0";

    fn event(detail_type: &str, detail: &str) -> String {
        format!(
            r#"{{"version": "0", "id": "12345678-1234-1234-1234-123456789012", "detail-type": "{detail_type}",
            "source": "aws.ec2", "account": "123456789012", "time": "2021-02-03T14:05:06Z", "region": "us-east-2",
            "resources": ["arn:aws:ec2:us-east-2:123456789012:instance/{ID}"], "detail": {detail}}}"#
        )
    }

    fn health(code: &str, category: &str, entities: &str) -> String {
        let detail = format!(
            r#"{{"eventArn": "arn:aws:health:us-west-2::event/EC2/{code}/x", "service": "EC2", "eventScopeCode": "ACCOUNT_SPECIFIC",
            "eventTypeCode": "{code}", "eventTypeCategory": "{category}", "startTime": "Sat, 05 Jun 2016 15:10:09 GMT",
            "eventDescription": [{{"language": "en_US", "latestDescription": "..."}}], "affectedEntities": {entities}}}"#
        );
        event("AWS Health Event", &detail)
    }

    fn read(body: &str) -> Vec<(NoticeKind, String, String, String)> {
        let notices = parse(body, Timestamp::UNIX_EPOCH).unwrap_or_else(|error| panic!("{body}: {error}"));
        let shown = |notice: InterruptionNotice| {
            let InterruptionNotice { instance, notice, .. } = notice;
            (
                notice.kind,
                instance.to_string(),
                notice.at.to_string(),
                notice.reason,
            )
        };
        notices.into_iter().map(shown).collect()
    }

    /// A message misread is a spot pod killed without a word, or a pod ended for nothing.
    #[test]
    fn what_eventbridge_documents_is_understood() {
        use NoticeKind::{Interruption, LiveMaintenance, Maintenance, Rebalance};

        let of = |state: &str| format!(r#"{{"instance-id": "{ID}", "state": "{state}"}}"#);
        let state = |state: &str| event("EC2 Instance State-change Notification", &of(state));
        let entities = format!(r#"[{{"entityValue": "{ID}", "tags": {{"stage": "prod"}}}}]"#);
        let sent = "2021-02-03T14:05:06Z";
        let begins = "2016-06-05T15:10:09Z";
        type Case = (String, Option<(NoticeKind, &'static str, &'static str)>);
        let cases: [Case; 15] = [
            (
                event(
                    "EC2 Spot Instance Interruption Warning",
                    &format!(r#"{{"instance-id": "{ID}", "instance-action": "terminate"}}"#),
                ),
                Some((
                    Interruption,
                    "2021-02-03T14:07:06Z",
                    "spot interruption, action terminate",
                )),
            ),
            (
                event(
                    "EC2 Instance Rebalance Recommendation",
                    &format!(r#"{{"instance-id": "{ID}"}}"#),
                ),
                Some((
                    Rebalance,
                    sent,
                    "EC2 recommends to move: the risk of an interruption is elevated",
                )),
            ),
            (state("pending"), None),
            (state("running"), None),
            (
                state("shutting-down"),
                Some((Interruption, sent, "EC2 says that it is shutting-down")),
            ),
            (
                state("terminated"),
                Some((Interruption, sent, "EC2 says that it is terminated")),
            ),
            (
                state("stopping"),
                Some((Interruption, sent, "EC2 says that it is stopping")),
            ),
            (
                state("stopped"),
                Some((Interruption, sent, "EC2 says that it is stopped")),
            ),
            (
                health("AWS_EC2_INSTANCE_STOP_SCHEDULED", "scheduledChange", &entities),
                Some((Maintenance, begins, "AWS_EC2_INSTANCE_STOP_SCHEDULED")),
            ),
            (
                health(
                    "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
                    "scheduledChange",
                    &entities,
                ),
                Some((
                    Maintenance,
                    begins,
                    "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
                )),
            ),
            (
                health(
                    "AWS_EC2_SYSTEM_REBOOT_MAINTENANCE_SCHEDULED",
                    "scheduledChange",
                    "[]",
                ),
                Some((Maintenance, begins, "AWS_EC2_SYSTEM_REBOOT_MAINTENANCE_SCHEDULED")),
            ),
            (
                health(
                    "AWS_EC2_INSTANCE_NETWORK_MAINTENANCE_SCHEDULED",
                    "scheduledChange",
                    &entities,
                ),
                Some((
                    LiveMaintenance,
                    begins,
                    "AWS_EC2_INSTANCE_NETWORK_MAINTENANCE_SCHEDULED",
                )),
            ),
            (
                health(
                    "AWS_EC2_INSTANCE_STORE_DRIVE_PERFORMANCE_DEGRADED",
                    "issue",
                    &entities,
                ),
                None,
            ),
            (
                health("AWS_EC2_INSTANCE_STOP_SCHEDULED", "scheduledChange", &entities)
                    .replace(r#""service": "EC2""#, r#""service": "RDS""#),
                None,
            ),
            (
                health("AWS_EC2_INSTANCE_STOP_SCHEDULED", "scheduledChange", &entities).replace(
                    r#""service": "EC2""#,
                    r#""service": "EC2", "statusCode": "closed""#,
                ),
                None,
            ),
        ];
        for (body, wanted) in cases {
            let read = read(&body);
            let read: Vec<_> = read
                .iter()
                .map(|(kind, id, at, reason)| {
                    assert_eq!(id, ID, "{body}");
                    (*kind, at.as_str(), reason.as_str())
                })
                .collect();
            assert_eq!(read, wanted.into_iter().collect::<Vec<_>>(), "{body}");
        }
    }

    #[test]
    fn what_is_not_for_us_says_why() {
        for (body, says) in [
            ("hello", "it is not JSON"),
            ("{}", "it has no detail-type"),
            (r#"{"detail-type": "x"}"#, "it has no detail"),
            (
                &event("EC2 Fleet Error", "{}"),
                "its detail-type is EC2 Fleet Error",
            ),
            (
                &event("EC2 Spot Instance Interruption Warning", "{}"),
                "its detail has no instance-id",
            ),
            (
                &event("EC2 Instance State-change Notification", "{}"),
                "its detail has no state",
            ),
            (
                &health("AWS_EC2_INSTANCE_STOP_SCHEDULED", "scheduledChange", "[]")
                    .replace("Sat, 05 Jun 2016", "some day"),
                "its startTime cannot be read",
            ),
        ] {
            let error = parse(body, Timestamp::UNIX_EPOCH).expect_err(body);
            assert!(error.contains(says), "{body}: {error}");
        }
    }
}
