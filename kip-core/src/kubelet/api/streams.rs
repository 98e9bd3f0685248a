//! The query of exec, attach and port-forward: what session is wanted. Pure.

use http::StatusCode;

use super::logs::parse_bool;
use super::reply::Refusal;
use super::route::{Route, query_pairs};
use crate::runtime::StreamKind;

/// The session a request asks for. A terminal swallows stderr, as with a kubelet.
pub(super) fn stream_kind(route: &Route, query: &str) -> Result<StreamKind, Refusal> {
    let bad = |text: String| Refusal::new(StatusCode::BAD_REQUEST, text);
    let pairs = query_pairs(query).ok_or_else(|| bad("the query has a broken percent escape".to_owned()))?;
    let flag = |names: [&str; 2]| {
        pairs
            .iter()
            .filter(|(key, _)| names.contains(&key.as_str()))
            .any(|(_, value)| parse_bool(value).unwrap_or(false))
    };
    let stdin = flag(["input", "stdin"]);
    let stdout = flag(["output", "stdout"]);
    let tty = flag(["tty", "tty"]);
    let stderr = flag(["error", "stderr"]) && !tty;
    let need_a_stream = || {
        if stdin || stdout || stderr {
            Ok(())
        } else {
            Err(bad(
                "you must specify at least 1 of stdin, stdout, stderr".to_owned()
            ))
        }
    };
    match route {
        Route::Exec(target) => {
            need_a_stream()?;
            let command: Vec<String> = pairs
                .iter()
                .filter(|(key, _)| key == "command")
                .map(|(_, value)| value.clone())
                .collect();
            if command.is_empty() {
                return Err(bad("you must specify a command".to_owned()));
            }
            Ok(StreamKind::Exec {
                container: target.container.clone(),
                command,
                stdin,
                stdout,
                stderr,
                tty,
            })
        }
        Route::Attach(target) => {
            need_a_stream()?;
            Ok(StreamKind::Attach {
                container: target.container.clone(),
                stdin,
                stdout,
                stderr,
                tty,
            })
        }
        _ => {
            let ports = pairs
                .iter()
                .filter(|(key, _)| key == "port" || key == "ports")
                .flat_map(|(_, value)| value.split(','))
                .map(|port| match port.parse::<u16>() {
                    Ok(0) | Err(_) => Err(bad(format!(
                        "port must be a number from 1 to 65535, not {port:?}"
                    ))),
                    Ok(port) => Ok(port),
                })
                .collect::<Result<_, _>>()?;
            Ok(StreamKind::PortForward { ports })
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::route::route;
    use super::*;

    fn parse(path: &str, query: &str) -> Result<StreamKind, u16> {
        stream_kind(&route(&Method::POST, path), query).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn exec_gets_its_command_and_streams_in_order() {
        assert_eq!(
            parse(
                "/exec/d/p/main",
                "command=sh&command=-c&input=1&output=1&error=1&tty=1"
            ),
            Ok(StreamKind::Exec {
                container: "main".into(),
                command: vec!["sh".into(), "-c".into()],
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true,
            })
        );
        assert_eq!(
            parse("/portForward/d/p", "port=80&port=81"),
            Ok(StreamKind::PortForward { ports: vec![80, 81] })
        );
    }

    #[test]
    fn a_session_without_streams_command_or_a_real_port_is_refused() {
        assert_eq!(parse("/exec/d/p/main", "command=sh"), Err(400));
        assert_eq!(parse("/exec/d/p/main", "output=1"), Err(400));
        assert_eq!(parse("/attach/d/p/main", ""), Err(400));
        assert_eq!(parse("/portForward/d/p", "port=0"), Err(400));
    }
}
