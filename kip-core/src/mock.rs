//! Mocks of the traits, for proving that a call is not made. For behaviour use the fakes of `kip-testkit`.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use mockall::mock;

use crate::error::Result;
use crate::ids::{InstanceId, PodUid};
use crate::model::{Instance, Offering, PodManifest, RuntimeReport};
use crate::provider::{
    CloudProvider, InterruptionFeed, LaunchRequest, ListOptions, OfferingQuery, ProviderInfo, UserData,
};
use crate::runtime::{BootRequest, CellEndpoint, LogRequest, PodRuntime, PodStats, StreamKind, Upgrade};

mock! {
    /// A cloud provider that answers what it is told to, and fails on calls it does not expect.
    #[derive(Debug)]
    pub CloudProvider {}

    impl fmt::Display for CloudProvider {
        fn fmt<'a>(&self, f: &mut fmt::Formatter<'a>) -> fmt::Result;
    }

    #[async_trait]
    impl CloudProvider for CloudProvider {
        fn info(&self) -> &ProviderInfo;
        async fn launch(&self, request: LaunchRequest) -> Result<Instance>;
        async fn terminate(&self, id: &InstanceId) -> Result<()>;
        async fn get(&self, id: &InstanceId) -> Result<Instance>;
        fn list(&self, options: ListOptions) -> BoxStream<'static, Result<Instance>>;
        async fn offerings(&self, query: &OfferingQuery) -> Result<Vec<Offering>>;
        fn interruptions<'a>(&'a self) -> Option<&'a dyn InterruptionFeed>;
    }
}

mock! {
    /// Hosts that answer what they are told to, and fail on calls they do not expect.
    #[derive(Debug)]
    pub PodRuntime {}

    #[async_trait]
    impl PodRuntime for PodRuntime {
        fn user_data(&self, request: &BootRequest) -> Result<UserData>;
        async fn watch(&self, cell: &CellEndpoint, patience: Duration)
            -> Result<BoxStream<'static, Result<RuntimeReport>>>;
        async fn deploy(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()>;
        async fn update(&self, cell: &CellEndpoint, manifest: &PodManifest) -> Result<()>;
        async fn stop(&self, cell: &CellEndpoint, pod: &PodUid, grace: Duration, reason: &str) -> Result<()>;
        async fn logs(&self, cell: &CellEndpoint, pod: &PodUid, request: LogRequest)
            -> Result<BoxStream<'static, Result<Vec<u8>>>>;
        async fn open(&self, cell: &CellEndpoint, pod: &PodUid, kind: StreamKind) -> Result<Upgrade>;
        async fn stats(&self, cell: &CellEndpoint, pod: &PodUid) -> Result<PodStats>;
    }
}
