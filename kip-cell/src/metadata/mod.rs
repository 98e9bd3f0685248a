//! Follows what the cloud announces about this instance in its metadata service.
//!
//! The service is asked again and again; it never calls. One that does not answer is asked less and less often and harms nothing: what it
//! said last stands. Nothing is kept across restarts of the agent, as the service says everything again.

mod addresses;
mod client;
mod ec2;
#[cfg(test)]
mod tests;

use std::time::Duration;

use kip_cell_api::v1::InstanceNotice;
use kip_cell_api::{MetadataKind, MetadataService};
use tokio::sync::mpsc;

pub(crate) use addresses::{Addresses, addresses};
pub(crate) use client::check;

/// How often the service is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between questions, and first between failures.
    pub(crate) every: Duration,
    /// Between questions to a service that does not answer, at the longest: well below the two minutes of a spot interruption's notice.
    pub(crate) longest: Duration,
    /// How long one question may take, of the three of a round.
    pub(crate) limit: Duration,
}

impl Default for Pace {
    /// Every 5 s, as EC2's documentation recommends for interruption notices; every minute at least.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            longest: Duration::from_secs(60),
            limit: Duration::from_secs(4),
        }
    }
}

/// Sends all notices whenever they change. Runs until dropped, or until nobody listens; ends at once where nothing can be asked.
pub(crate) async fn watch(service: MetadataService, pace: Pace, changes: mpsc::Sender<Vec<InstanceNotice>>) {
    let mut session = match service.kind {
        MetadataKind::Ec2 => ec2::Session::new(service.endpoint),
        _ => {
            tracing::warn!(
                "the metadata service is of a kind this agent does not know; interruptions are not noticed here"
            );
            return;
        }
    };
    let mut known = Vec::new();
    let mut pause = pace.every;
    loop {
        let answer = session.ask(pace.limit).await;
        let notices = session.notices();
        if notices != known {
            tracing::info!(?notices, "the cloud announces");
            known.clone_from(&notices);
            if changes.send(notices).await.is_err() {
                return;
            }
        }
        match answer {
            Ok(()) => pause = pace.every,
            Err(error) => {
                // Said once: a cell outside its cloud would say it for ever.
                if pause == pace.every {
                    tracing::info!(
                        error,
                        "the metadata service does not answer; it is asked less often"
                    );
                }
                tracing::debug!(error, "metadata");
                pause = pause.saturating_mul(2).min(pace.longest);
            }
        }
        tokio::time::sleep(pause).await;
    }
}
