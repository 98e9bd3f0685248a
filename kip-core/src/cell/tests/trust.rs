//! Who may talk to whom, and what happens when a cell is late or goes away.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use kip_cell_api::v1::GetInfoRequest;
use kip_cell_api::v1::cell_client::CellClient;
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::agent::{Agent, PATIENCE, SHORT, authority, boot_config, boot_request};
use crate::cell::BootOptions;
use crate::error::ErrorKind;
use crate::ids::{PodRef, PodUid};
use crate::model::PodManifest;
use crate::runtime::{LogRequest, PodRuntime as _, StreamKind};

#[tokio::test]
async fn every_call_reaches_the_agent_over_one_connection_that_goes_with_the_watch() {
    let authority = authority();
    let request = boot_request("aaaaaaaaaaaaaaaa");
    let agent = Agent::serve(&boot_config(
        &authority.user_data(&request, &BootOptions::default()).unwrap(),
    ))
    .await;
    let (runtime, cell) = agent.dial(&authority, request.cell.as_str());
    let mut reports = runtime.watch(&cell, PATIENCE).await.unwrap();
    assert_eq!(reports.next().await.unwrap().unwrap().boot_id, "b-1");
    assert_eq!(runtime.connections(), 1);

    let pod = PodRef {
        uid: PodUid::new("u-1"),
        namespace: "n".into(),
        name: "p".into(),
    };
    let mut manifest = PodManifest::new(pod.clone());
    runtime.deploy(&cell, &manifest).await.unwrap();
    runtime
        .stop(&cell, &pod.uid, Duration::from_millis(1500), "Deleted")
        .await
        .unwrap();
    assert_eq!(*agent.calls.lock().unwrap(), ["deploy u-1", "stop u-1 2 Deleted"]);
    assert_eq!(
        runtime.update(&cell, &manifest).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    manifest.pod.uid = PodUid::new("other");
    let error = runtime.deploy(&cell, &manifest).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Conflict, "this cell holds pod u-1")
    );

    let logs = runtime
        .logs(&cell, &pod.uid, LogRequest::default())
        .await
        .unwrap();
    let text: Vec<_> = logs.map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(text.concat(), b"a\nb\n");
    assert_eq!(runtime.stats(&cell, &pod.uid).await.unwrap().network_rx_bytes, 7);

    drop(reports);
    assert_eq!(runtime.connections(), 0);
    // Still served, on a connection of its own.
    runtime.stop(&cell, &pod.uid, Duration::ZERO, "x").await.unwrap();
    assert_eq!(runtime.connections(), 0);
}

/// Port-forwarded data must arrive whole and in order, and the half-close must get through.
#[tokio::test]
async fn a_session_carries_bytes_both_ways_and_ends_when_one_side_hangs_up() {
    let authority = authority();
    let request = boot_request("aaaaaaaaaaaaaaaa");
    let agent = Agent::serve(&boot_config(
        &authority.user_data(&request, &BootOptions::default()).unwrap(),
    ))
    .await;
    let (runtime, cell) = agent.dial(&authority, request.cell.as_str());
    let kind = StreamKind::PortForward { ports: vec![80] };
    let mut session = runtime.open(&cell, &PodUid::new("u-1"), kind).await.unwrap();
    assert_eq!(session.path, "/exec/x");
    let sent: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let copy = sent.clone();
    let mut to_host = session.io.to_host;
    let sending = tokio::spawn(async move {
        to_host.send(copy).await.unwrap();
        to_host.close().await.unwrap();
        assert_eq!(
            to_host.send(vec![1]).await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    });
    let mut received = Vec::new();
    while let Some(bytes) = session.io.from_host.next().await {
        received.extend(bytes.unwrap());
    }
    sending.await.unwrap();
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}

/// Another cell on a reused address must not be told to run the pod.
#[tokio::test]
async fn a_cell_with_another_name_is_refused() {
    let authority = authority();
    let boot = boot_config(
        &authority
            .user_data(&boot_request("aaaaaaaaaaaaaaaa"), &BootOptions::default())
            .unwrap(),
    );
    let agent = Agent::serve(&boot).await;
    let (runtime, cell) = agent.dial(&authority, "cell-another");
    let error = runtime.watch(&cell, SHORT).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    let error = runtime
        .stop(&cell, &PodUid::new("u"), Duration::ZERO, "")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
}

/// Whoever can reach a cell's port could else run what he likes there, or read its secrets.
#[tokio::test]
async fn strangers_are_refused_by_both_sides() {
    let (ours, theirs) = (authority(), authority());
    let request = boot_request("aaaaaaaaaaaaaaaa");
    let boot = boot_config(&ours.user_data(&request, &BootOptions::default()).unwrap());
    let agent = Agent::serve(&boot).await;
    // A controller of another installation. It does not get as far as being refused: it refuses the cell.
    let (runtime, cell) = agent.dial(&theirs, request.cell.as_str());
    let error = runtime.watch(&cell, SHORT).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    // Clients that trust the cell, but have no certificate, one of another authority, or only a cell's.
    let stranger = boot_config(&theirs.user_data(&request, &BootOptions::default()).unwrap());
    let trusting = || {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&boot.ca_pem))
            .domain_name(request.cell.as_str())
    };
    for (who, tls) in [
        ("no certificate", trusting()),
        (
            "another authority's",
            trusting().identity(Identity::from_pem(
                &stranger.certificate_pem,
                &stranger.private_key_pem,
            )),
        ),
        (
            "a cell's",
            trusting().identity(Identity::from_pem(&boot.certificate_pem, &boot.private_key_pem)),
        ),
    ] {
        let endpoint = Channel::from_shared(format!("https://{}", agent.address))
            .unwrap()
            .tls_config(tls)
            .unwrap();
        let refused = match endpoint.connect().await {
            Err(_) => true,
            Ok(channel) => CellClient::new(channel)
                .get_info(GetInfoRequest {})
                .await
                .is_err(),
        };
        assert!(refused, "{who}");
    }
    // And the one who should be is not.
    let (runtime, cell) = agent.dial(&ours, request.cell.as_str());
    drop(runtime.watch(&cell, PATIENCE).await.unwrap());
}

/// A cell boots while the controller already dials.
#[tokio::test]
async fn a_watch_waits_for_a_late_agent_and_gives_up_in_time() {
    let authority = authority();
    let request = boot_request("aaaaaaaaaaaaaaaa");
    let boot = boot_config(&authority.user_data(&request, &BootOptions::default()).unwrap());
    let place = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let runtime = Arc::new(crate::cell::CellRuntime::new(Arc::clone(&authority)).with_port(place.port()));
    let cell = crate::runtime::CellEndpoint {
        cell: request.cell,
        address: place.ip(),
    };
    let error = runtime.watch(&cell, SHORT).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let (dialing, there) = (Arc::clone(&runtime), cell.clone());
    let watch = tokio::spawn(async move { dialing.watch(&there, PATIENCE).await.map(|_| ()) });
    tokio::task::yield_now().await;
    let agent = Agent::serve_on(TcpListener::bind(place).await.unwrap(), &boot);
    watch.await.unwrap().unwrap();
    drop(agent);
}

/// The machine learns of a lost cell by the end of the watch.
#[tokio::test]
async fn a_watch_ends_with_an_error_when_the_agent_goes() {
    let authority = authority();
    let request = boot_request("aaaaaaaaaaaaaaaa");
    let boot = boot_config(&authority.user_data(&request, &BootOptions::default()).unwrap());
    // A runtime of its own, so that its end closes the connections too.
    let serving = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let agent = serving
        .spawn(async move { Agent::serve(&boot).await })
        .await
        .unwrap();
    let (runtime, cell) = agent.dial(&authority, request.cell.as_str());
    let mut reports = runtime.watch(&cell, PATIENCE).await.unwrap();
    reports.next().await.unwrap().unwrap();
    serving.shutdown_background();
    let end = tokio::time::timeout(PATIENCE, reports.next())
        .await
        .expect("the loss was not noticed");
    assert_eq!(
        end.expect("an error, not a quiet end").unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(reports.next().await.is_none());
    assert_eq!(runtime.connections(), 0);
}

#[test]
fn the_controllers_certificate_is_replaced_before_it_ends() {
    let authority = authority();
    let now = Timestamp::now();
    let hours = |count| now + jiff::SignedDuration::from_hours(count);
    let first = authority.client_config(now).unwrap();
    assert!(Arc::ptr_eq(&first, &authority.client_config(hours(11)).unwrap()));
    assert!(!Arc::ptr_eq(&first, &authority.client_config(hours(13)).unwrap()));
}
