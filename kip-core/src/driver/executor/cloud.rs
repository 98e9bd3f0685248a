//! The calls to the provider, each bounded and counted.

use std::future::Future;

use futures_core::stream::BoxStream;

use super::next;
use crate::driver::clock::within;
use crate::driver::core::Core;
use crate::driver::governor::Class;
use crate::driver::metrics::LaunchOutcome;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{InstanceId, LaunchToken};
use crate::machine::elapsed;
use crate::model::{CellRecord, Instance, LaunchOptions, Offering};
use crate::provider::{LaunchRequest, ListOptions, OfferingQuery, tags};
use crate::runtime::BootRequest;

impl Core {
    pub(super) async fn launch_one(&self, record: &CellRecord, options: LaunchOptions) -> Result<Instance> {
        let user_data = self.runtime.user_data(&BootRequest {
            cell: record.host(),
            node: record.node.clone(),
            pod: record.pod.uid.clone(),
            token: record.token.clone(),
            issued_at: record.issued_at,
        })?;
        let request = LaunchRequest::new(record.token.clone(), record.offering.clone(), user_data)
            .with_options(options)
            .with_tag(tags::CLUSTER, record.cluster.as_str())
            .with_tag(tags::NODE, record.node.as_str())
            .with_tag(tags::POD_UID, record.pod.uid.as_str())
            .with_tag(tags::POD, record.pod.to_string())
            .with_tag(tags::CELL, record.host().as_str())
            .with_tag(tags::ATTEMPT, record.attempt.to_string())
            .with_tag(tags::TOKEN, record.token.as_str());
        #[cfg(kip_mutants)]
        let request = crate::mutants::disturb(request, self.clock.now());
        let result = self.counted("launch", self.provider.launch(request)).await;
        self.counters.launch(LaunchOutcome::of(&result));
        result
    }

    pub(in crate::driver) async fn get(&self, instance: &InstanceId) -> Result<Instance> {
        self.governed(Class::Read, "get", || self.provider.get(instance))
            .await
    }

    pub(in crate::driver) async fn terminate(&self, instance: &InstanceId) -> Result<()> {
        let call = || self.provider.terminate(instance);
        let result = self.governed(Class::Terminate, "terminate", call).await;
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            self.catalogue.freed(self.clock.now());
        }
        result
    }

    pub(in crate::driver) async fn list_offerings(&self) -> Result<Vec<Offering>> {
        let query = OfferingQuery::default();
        self.governed(Class::Read, "offerings", || self.provider.offerings(&query))
            .await
    }

    pub(super) async fn find(&self, token: &LaunchToken) -> Result<Option<Instance>> {
        let options = self.list_options().with_tag(tags::TOKEN, token.as_str());
        Ok(self.list(options).await?.into_iter().next())
    }

    fn list_options(&self) -> ListOptions {
        ListOptions::default()
            .with_tag(tags::CLUSTER, self.step.identity.cluster.as_str())
            .with_tag(tags::NODE, self.step.identity.node.as_str())
    }

    /// All instances of this node, or an error: never a part of them.
    pub(in crate::driver) async fn list_ours(&self) -> Result<Vec<Instance>> {
        self.list(self.list_options()).await
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<Instance>> {
        let call = || collect(self.provider.list(options.clone()));
        self.governed(Class::Read, "list", call).await
    }

    /// A call in its turn, bounded and counted. A launch has its turn elsewhere: in the launch queue.
    async fn governed<T, F>(
        &self,
        class: Class,
        op: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let limit = self.config.call_timeout;
        let counted = || async {
            let result = self.counted(op, within(limit, op, call())).await;
            if result
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::RateLimited)
            {
                self.counters.throttled(class.as_str());
            }
            result
        };
        self.governor.call(class, op, &*self.clock, limit, counted).await
    }

    async fn counted<T>(&self, op: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let began = self.clock.now();
        let result = call.await;
        let took = elapsed(began, self.clock.now());
        let error = result.as_ref().err();
        self.counters.request(op, took, error.map(Error::kind));
        if let Some(error) = error {
            tracing::debug!(op, error = %error.chain(), "provider call failed");
        }
        result
    }
}

async fn collect(mut stream: BoxStream<'_, Result<Instance>>) -> Result<Vec<Instance>> {
    let mut all = Vec::new();
    while let Some(item) = next(&mut stream).await {
        all.push(item?);
    }
    Ok(all)
}
