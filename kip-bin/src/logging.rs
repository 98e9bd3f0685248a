//! Where log lines go: stderr, as text or JSON.

use anyhow::Context as _;
use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process's subscriber. `directives` is a level (`info`) or directives (`info,kip_core=debug`).
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn install(directives: &str, format: Format) -> anyhow::Result<()> {
    let filter = filter(directives)?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let installed = match format {
        Format::Text => {
            let lines = lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
            tracing_subscriber::registry()
                .with(lines.with_filter(filter))
                .try_init()
        }
        Format::Json => {
            let lines = lines.json().flatten_event(true);
            tracing_subscriber::registry()
                .with(lines.with_filter(filter))
                .try_init()
        }
    };
    installed.map_err(|error| anyhow::anyhow!("cannot install the log subscriber: {error}"))
}

/// What is logged.
fn filter<S: 'static>(directives: &str) -> anyhow::Result<impl Filter<S> + Send + Sync + 'static> {
    let filter = EnvFilter::builder().parse(directives).with_context(|| {
        format!(
            "--log-level {directives:?}: write a level such as info, or directives such as info,kip_core=debug"
        )
    })?;
    // It calls every failed connection an error; whoever made the call says so again where it matters.
    let quiet = "kube_client=off".parse().context("a directive of our own")?;
    let filter = if directives.contains("kube_client") {
        filter
    } else {
        filter.add_directive(quiet)
    };
    Ok(filter.and(filter_fn(is_discreet)))
}

/// Whether something may be logged at all. At trace AWS's client prints whole requests, and a launch has a cell's private key in its
/// user-data: that is left out, whatever was asked for.
fn is_discreet(of: &Metadata<'_>) -> bool {
    !(*of.level() == Level::TRACE && of.target().starts_with("aws_"))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What of one line of each level of AWS's client, and one of ours, is logged.
    fn logged(directives: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter(directives).unwrap()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("ours");
            tracing::debug!(target: "aws_smithy_runtime::client", "detail");
            tracing::trace!(target: "aws_smithy_runtime::client", "whole request");
            tracing::trace!(target: "aws_sdk_ec2", "whole request");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_level_logs_whole_requests_and_the_usual_one_no_details_of_them() {
        let usual = logged("info");
        assert!(usual.contains("ours") && !usual.contains("detail"), "{usual}");
        assert!(logged("debug").contains("detail"));
        for directives in ["trace", "info,aws_smithy_runtime::client=trace,aws_sdk_ec2=trace"] {
            let all = logged(directives);
            assert!(
                all.contains("ours") && all.contains("detail"),
                "{directives}: {all}"
            );
            assert!(!all.contains("whole request"), "{directives}: {all}");
        }
    }
}
