//! Listens for SIGINT and SIGTERM.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Told by the user, or by the system, to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// Fires at the first signal: end in good order.
    pub(crate) end: CancellationToken,
    /// Fires at the second: end at once, but leave nothing behind.
    pub(crate) hurry: CancellationToken,
}

impl Signals {
    /// Listens from now on; from now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let signals = Self::default();
        let told = signals.clone();
        tokio::spawn(async move {
            for token in [told.end, told.hurry] {
                tokio::select! {
                    _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
                    _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
                }
                token.cancel();
            }
        });
        Ok(signals)
    }
}
