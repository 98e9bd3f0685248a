//! EC2's instance metadata service, version 2, and what it announces.

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use kip_cell_api::v1::{InstanceNotice, NoticeKind};
use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::client::Connection;
use crate::pod::project::proto_time;

/// Seconds a token is valid: the most EC2 gives.
const TOKEN_SECONDS: &str = "21600";
/// A token is replaced at half its life.
const TOKEN_RENEWED_AFTER: Duration = Duration::from_secs(3 * 3600);
const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";

/// How one kind of announcement is read.
type Parse = fn(&str) -> Result<Vec<InstanceNotice>, String>;

/// What is asked for, and how it is read. Absent (404) while there is nothing to announce.
const SOURCES: [(&str, Parse); 3] = [
    ("/latest/meta-data/spot/instance-action", interruption),
    ("/latest/meta-data/events/recommendations/rebalance", rebalance),
    ("/latest/meta-data/events/maintenance/scheduled", maintenance),
];

/// Which of them tells that the instance is taken back.
const INTERRUPTION: usize = 0;

/// What is known of one of the sources.
#[derive(Default)]
struct Known {
    notices: Vec<InstanceNotice>,
    is_failing: bool,
}

/// A conversation with the service.
pub(super) struct Session {
    endpoint: String,
    token: Option<(String, Instant)>,
    known: [Known; SOURCES.len()],
}

impl Session {
    pub(super) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            token: None,
            known: Default::default(),
        }
    }

    /// Asks every source once, each for so long at most. One that fails hides no other, and what it said last stands.
    ///
    /// # Errors
    /// When it cannot be known whether the instance is taken back. What others said is in [`notices`](Self::notices) all the same.
    pub(super) async fn ask(&mut self, limit: Duration) -> Result<(), String> {
        let mut connection = None;
        let mut answer = Ok(());
        for (index, (path, parse)) in SOURCES.into_iter().enumerate() {
            let asked = tokio::time::timeout(limit, self.read(&mut connection, path)).await;
            let read = asked
                .unwrap_or_else(|_| Err(format!("{path}: no answer in time")))
                .and_then(|text| match text {
                    Some(text) => parse(&text).map_err(|error| format!("{path}: {error}")),
                    None => Ok(Vec::new()),
                });
            let known = &mut self.known[index];
            match read {
                Ok(notices) => {
                    *known = Known {
                        notices,
                        is_failing: false,
                    };
                }
                Err(error) => {
                    // What comes over it next may belong to this question.
                    connection = None;
                    if index == INTERRUPTION {
                        answer = Err(error);
                    } else if !known.is_failing {
                        tracing::info!(
                            error,
                            "some announcements cannot be read; what was read last stands"
                        );
                    }
                    known.is_failing = true;
                }
            }
        }
        answer
    }

    /// Everything that is announced, as far as it was heard.
    pub(super) fn notices(&self) -> Vec<InstanceNotice> {
        let all = self.known.iter().flat_map(|known| &known.notices);
        all.cloned().collect()
    }

    /// One document over the connection, which is opened where there is none.
    async fn read(
        &mut self,
        connection: &mut Option<Connection>,
        path: &str,
    ) -> Result<Option<String>, String> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(Connection::open(&self.endpoint).await?),
        };
        self.get(connection, path).await
    }

    /// One document; none where there is none.
    pub(super) async fn get(
        &mut self,
        connection: &mut Connection,
        path: &str,
    ) -> Result<Option<String>, String> {
        let mut is_fresh = false;
        loop {
            let token = match &self.token {
                Some((token, since)) if since.elapsed() < TOKEN_RENEWED_AFTER => token.clone(),
                Some(_) | None => {
                    is_fresh = true;
                    let token = new_token(connection).await?;
                    self.token = Some((token.clone(), Instant::now()));
                    token
                }
            };
            match connection.ask(Method::GET, path, (TOKEN, &token)).await? {
                (StatusCode::OK, text) => return Ok(Some(text)),
                (StatusCode::NOT_FOUND, _) => return Ok(None),
                // The service was restarted, or its clock was set: it does not know the token any more.
                (StatusCode::UNAUTHORIZED, _) if !is_fresh => self.token = None,
                (status, _) => {
                    self.token = None;
                    return Err(format!("{path}: answered {status}"));
                }
            }
        }
    }
}

async fn new_token(connection: &mut Connection) -> Result<String, String> {
    match connection
        .ask(Method::PUT, TOKEN_PATH, (TOKEN_TTL, TOKEN_SECONDS))
        .await?
    {
        (StatusCode::OK, token) => Ok(token),
        (status, _) => Err(format!("{TOKEN_PATH}: answered {status}")),
    }
}

/// `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`. Source: "Spot Instance interruption notices", Amazon EC2 User Guide.
fn interruption(text: &str) -> Result<Vec<InstanceNotice>, String> {
    let json = json(text)?;
    let at = text_of(&json, "time")?
        .parse()
        .map_err(|error| format!("time: {error}"))?;
    let reason = format!("spot interruption, action {}", text_of(&json, "action")?);
    Ok(vec![notice(NoticeKind::Interruption, at, reason)])
}

/// `{"noticeTime": "2020-11-05T08:22:00Z"}`. Source: "EC2 instance rebalance recommendations", Amazon EC2 User Guide.
fn rebalance(text: &str) -> Result<Vec<InstanceNotice>, String> {
    let at = text_of(&json(text)?, "noticeTime")?
        .parse()
        .map_err(|error| format!("noticeTime: {error}"))?;
    let reason = "EC2 recommends to move: the risk of an interruption is elevated".to_owned();
    Ok(vec![notice(NoticeKind::Rebalance, at, reason)])
}

/// A list of `{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "Description": "scheduled reboot", "EventId": ...,
/// "NotAfter": ..., "State": "active"}`. Source: "Scheduled events for your instances", Amazon EC2 User Guide. One that cannot be read does
/// not hide the others.
fn maintenance(text: &str) -> Result<Vec<InstanceNotice>, String> {
    let json = json(text)?;
    let list = json.as_array().ok_or("is not a list")?;
    let mut notices = Vec::new();
    for event in list {
        match scheduled(event) {
            Ok(found) => notices.extend(found),
            Err(error) => tracing::warn!(error, %event, "a scheduled event of this instance cannot be read"),
        }
    }
    Ok(notices)
}

fn scheduled(event: &Value) -> Result<Option<InstanceNotice>, String> {
    // The others are `completed` and `canceled`.
    if text_of(event, "State").is_ok_and(|state| state != "active") {
        return Ok(None);
    }
    let begins = text_of(event, "NotBefore")?;
    let at = DateTime::strptime("%d %b %Y %H:%M:%S GMT", begins)
        .and_then(|at| at.to_zoned(TimeZone::UTC))
        .map_err(|error| format!("NotBefore: {error}"))?
        .timestamp();
    let code = text_of(event, "Code")?;
    let kind = match code {
        // What runs on the instance survives.
        "system-maintenance" => NoticeKind::LiveMaintenance,
        // `instance-stop`, `instance-retirement`, `instance-reboot`, `system-reboot`, and what may be added to them.
        _ => NoticeKind::Maintenance,
    };
    let description = text_of(event, "Description").unwrap_or_default();
    let reason = format!("{code}, not before {at}: {description}");
    Ok(Some(notice(
        kind,
        at,
        reason.trim_end_matches([':', ' ']).to_owned(),
    )))
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))
}

fn text_of<'a>(json: &'a Value, field: &str) -> Result<&'a str, String> {
    json.get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("{field}: is missing"))
}

fn notice(kind: NoticeKind, at: Timestamp, reason: String) -> InstanceNotice {
    InstanceNotice {
        kind: kind.into(),
        at: Some(proto_time(at)),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parse: Parse, text: &str) -> Vec<(NoticeKind, String, String)> {
        let notices = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let shown = |notice: InstanceNotice| {
            let at = notice.at.expect("has a time");
            let at = Timestamp::new(at.seconds, at.nanos).expect("in range");
            (notice.kind(), at.to_string(), notice.reason)
        };
        notices.into_iter().map(shown).collect()
    }

    /// A format misread is a pod that dies without a word two minutes later.
    #[test]
    fn what_ec2_documents_is_understood() {
        use NoticeKind::{Interruption, LiveMaintenance, Maintenance, Rebalance};

        let scheduled = |code: &str, state: &str| {
            format!(
                r#"[{{"NotBefore" : "2 Feb 2019 09:00:43 GMT", "Code" : "{code}", "Description" : "scheduled",
                "EventId" : "instance-event-0d59937288b749b32", "NotAfter" : "21 Jan 2019 09:17:23 GMT", "State" : "{state}"}}]"#
            )
        };
        let spot = |action: &str| format!(r#"{{"action": "{action}", "time": "2017-09-18T08:22:00Z"}}"#);
        let begins = "2019-02-02T09:00:43Z";
        type Case = (Parse, String, Option<(NoticeKind, &'static str)>);
        let cases: [Case; 11] = [
            (
                interruption,
                spot("terminate"),
                Some((Interruption, "2017-09-18T08:22:00Z")),
            ),
            (
                interruption,
                spot("stop"),
                Some((Interruption, "2017-09-18T08:22:00Z")),
            ),
            (
                interruption,
                spot("hibernate"),
                Some((Interruption, "2017-09-18T08:22:00Z")),
            ),
            (
                rebalance,
                r#"{"noticeTime": "2020-11-05T08:22:00Z"}"#.into(),
                Some((Rebalance, "2020-11-05T08:22:00Z")),
            ),
            (
                maintenance,
                scheduled("system-reboot", "active"),
                Some((Maintenance, begins)),
            ),
            (
                maintenance,
                scheduled("instance-stop", "active"),
                Some((Maintenance, begins)),
            ),
            (
                maintenance,
                scheduled("instance-retirement", "active"),
                Some((Maintenance, begins)),
            ),
            (
                maintenance,
                scheduled("system-maintenance", "active"),
                Some((LiveMaintenance, begins)),
            ),
            (maintenance, scheduled("instance-reboot", "completed"), None),
            (maintenance, scheduled("instance-reboot", "canceled"), None),
            (maintenance, "[]".into(), None),
        ];
        for (parse, text, wanted) in cases {
            let read = read(parse, &text);
            let read: Vec<_> = read.iter().map(|(kind, at, _)| (*kind, at.as_str())).collect();
            assert_eq!(read, wanted.into_iter().collect::<Vec<_>>(), "{text}");
        }
        let (_, _, reason) = &read(maintenance, &scheduled("system-reboot", "active"))[0];
        assert_eq!(
            reason,
            "system-reboot, not before 2019-02-02T09:00:43Z: scheduled"
        );
    }

    #[test]
    fn what_is_no_announcement_is_named_by_its_field() {
        let cases: [(Parse, &str, &str); 6] = [
            (interruption, "none", "is not JSON"),
            (interruption, r#"{"action": "stop"}"#, "time: is missing"),
            (interruption, r#"{"action": "stop", "time": "soon"}"#, "time: "),
            (
                interruption,
                r#"{"time": "2017-09-18T08:22:00Z"}"#,
                "action: is missing",
            ),
            (rebalance, "{}", "noticeTime: is missing"),
            (maintenance, "{}", "is not a list"),
        ];
        for (parse, text, says) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    /// One event in a form nobody foresaw must not hide the retirement beside it.
    #[test]
    fn an_unreadable_event_hides_no_other() {
        let text = r#"[{"Code": "instance-stop", "NotBefore": "in spring", "State": "active"},
            {"Code": "instance-retirement", "NotBefore": "21 Jan 2019 09:00:43 GMT", "State": "active"}]"#;
        let read = read(maintenance, text);
        assert_eq!(read.len(), 1, "{read:?}");
        assert_eq!(read[0].2, "instance-retirement, not before 2019-01-21T09:00:43Z");
    }
}
