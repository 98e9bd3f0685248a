//! The query of `/containerLogs`: what is valid, and what it asks for. Pure.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::reply::Refusal;
use super::route::query_pairs;
use crate::runtime::LogRequest;

/// Decodes the query of a log request as a kubelet does: what cannot be read is 400, what makes no sense 422.
pub(super) fn log_request(container: &str, query: &str, now: Timestamp) -> Result<LogRequest, Refusal> {
    let undecodable =
        |what: String| Refusal::new(StatusCode::BAD_REQUEST, format!("Unable to decode query: {what}"));
    let invalid = |what: &str| {
        Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("Invalid request: {what}"),
        )
    };
    let pairs = query_pairs(query).ok_or_else(|| undecodable("a percent escape is broken".to_owned()))?;
    let mut request = LogRequest {
        container: container.to_owned(),
        ..LogRequest::default()
    };
    let mut since_seconds = None;
    for (key, value) in pairs {
        let number = || {
            value
                .parse::<i64>()
                .map_err(|_| undecodable(format!("{key} must be a whole number, not {value:?}")))
        };
        let flag = || {
            parse_bool(&value)
                .ok_or_else(|| undecodable(format!("{key} must be true or false, not {value:?}")))
        };
        match key.as_str() {
            "follow" => request.follow = flag()?,
            "previous" => request.previous = flag()?,
            "timestamps" => request.timestamps = flag()?,
            "tailLines" => {
                request.tail_lines =
                    Some(at_least(number()?, 0).ok_or_else(|| invalid("tailLines must be 0 or more"))?)
            }
            // The kubelet's older name; "all" is no limit.
            "tail" if value == "all" || value.is_empty() => {}
            "tail" => {
                request.tail_lines =
                    Some(at_least(number()?, 0).ok_or_else(|| invalid("tail must be 0 or more"))?)
            }
            "limitBytes" => {
                request.limit_bytes =
                    Some(at_least(number()?, 1).ok_or_else(|| invalid("limitBytes must be 1 or more"))?);
            }
            "sinceSeconds" => {
                since_seconds =
                    Some(at_least(number()?, 1).ok_or_else(|| invalid("sinceSeconds must be 1 or more"))?);
            }
            "sinceTime" => {
                let time = value
                    .parse()
                    .map_err(|_| undecodable(format!("sinceTime must be RFC 3339, not {value:?}")))?;
                request.since = Some(time);
            }
            "stream" => match value.as_str() {
                "All" | "Stdout" | "Stderr" => request.stream = value,
                "" => {}
                _ => {
                    return Err(undecodable(format!(
                        "stream must be All, Stdout or Stderr, not {value:?}"
                    )));
                }
            },
            // `container` repeats the path; `insecureSkipTLSVerifyBackend` is the API server's own; others are newer than this code.
            _ => {}
        }
    }
    if let Some(seconds) = since_seconds {
        if request.since.is_some() {
            return Err(invalid("at most one of sinceTime and sinceSeconds may be given"));
        }
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        // Longer ago than time began is everything.
        request.since = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
    }
    Ok(request)
}

fn at_least(number: i64, least: i64) -> Option<u64> {
    if number < least {
        None
    } else {
        u64::try_from(number).ok()
    }
}

/// The words Go's `strconv.ParseBool` takes, which is what clients of a kubelet send.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<LogRequest, u16> {
        let now = "2026-01-01T00:00:10Z".parse().expect("a time");
        log_request("main", query, now).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn kubectl_logs_flags_mean_what_they_mean_with_a_kubelet() {
        let request =
            parse("follow=true&tailLines=0&timestamps=true&limitBytes=5&sinceSeconds=10").expect("valid");
        assert!(request.follow && request.timestamps && !request.previous);
        assert_eq!((request.tail_lines, request.limit_bytes), (Some(0), Some(5)));
        assert_eq!(request.since, "2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(parse("tail=all").expect("valid").tail_lines, None);
        assert_eq!(parse("stream=Stderr").expect("valid").stream, "Stderr");
    }

    #[test]
    fn nonsense_is_refused_with_the_kubelets_codes() {
        for (query, code) in [
            ("tailLines=x", 400),
            ("follow=maybe", 400),
            ("sinceTime=yesterday", 400),
            ("stream=Both", 400),
            ("tailLines=%2", 400),
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422),
        ] {
            assert_eq!(parse(query), Err(code), "{query}");
        }
    }
}
