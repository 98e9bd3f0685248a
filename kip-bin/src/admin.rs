//! Plain HTTP for machines: `/metrics`, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::exposition::{encode, family};
use crate::standing::Standing;

/// What OpenMetrics calls itself.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the controller leads and, while it acts, its driver's counters.
#[derive(Debug)]
struct ControllerCollector(Standing);

impl Collector for ControllerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "1 while this controller leads, 0 while it stands by";
        let leader = family(&mut encoder, "kip_leader", help, MetricType::Gauge)?;
        ConstGauge::new(i64::from(self.0.is_leading())).encode(leader)?;
        match self.0.driver() {
            Some(driver) => encode(&driver.metrics(), &mut encoder)?,
            None => return Ok(()),
        }
        match self.0.freshness() {
            Some(freshness) => freshness.encode(&mut encoder),
            None => Ok(()),
        }
    }
}

/// All metrics of a controller, in one text.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Registry>);

impl Metrics {
    /// The metrics of a controller, whatever it does.
    pub(crate) fn of(standing: Standing) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ControllerCollector(standing)));
        Self(Arc::new(registry))
    }

    /// As OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.0);
        text
    }
}

/// The endpoint, bound and ready to run.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl Admin {
    /// Binds it. Ready means: it stands by, or the driver has taken over what was there and every pod of the node is known.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub(crate) async fn bind(listen: SocketAddr, standing: Standing) -> anyhow::Result<Self> {
        let metrics = Metrics::of(standing.clone());
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen} for metrics; choose another --metrics-addr (port 0 takes a free one)")
        })?;
        let address = listener
            .local_addr()
            .context("the metrics listener has no address")?;
        let router = Router::new()
            .route(
                "/metrics",
                get(move || {
                    let text = metrics.text();
                    async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
                }),
            )
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move || readiness(standing.clone())));
        Ok(Self {
            listener,
            address,
            router,
        })
    }

    /// Serves for as long as what it returns is kept.
    pub(crate) fn serve(self) -> AbortOnDropHandle<()> {
        tracing::info!(address = %self.address, "metrics are served");
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, self.router).await {
                tracing::error!(%error, "the metrics endpoint ended");
            }
        }))
    }
}

async fn readiness(standing: Standing) -> impl IntoResponse {
    match standing.readiness() {
        Ok(text) => (StatusCode::OK, text.to_owned()),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    }
}
