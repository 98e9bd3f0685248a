use super::*;

// The metadata service that all tests share.
use crate::imds::Imds;

/// An instance of EC2 with these addresses.
async fn instance(addresses: &str) -> MetadataService {
    const MAC: &str = "0e:49:61:0f:c3:11";
    let imds = Imds::default();
    let of_interface = format!("/latest/meta-data/network/interfaces/macs/{MAC}");
    imds.set("/latest/meta-data/mac", Some(MAC));
    imds.set("/latest/meta-data/local-ipv4", Some("10.0.1.17"));
    imds.set(&format!("{of_interface}/local-ipv4s"), Some(addresses));
    imds.set(
        &format!("{of_interface}/subnet-ipv4-cidr-block"),
        Some("10.0.1.0/24"),
    );
    imds.serve().await
}

fn written(folder: &Path) -> serde_json::Value {
    let text = fs::read(folder.join(FILE)).expect("was written");
    serde_json::from_slice(&text).expect("JSON")
}

/// Without it no pod with a network of its own starts on EC2.
#[tokio::test]
async fn the_pod_gets_the_instances_second_address() {
    let folder = tempfile::tempdir().expect("folder");
    let cni = folder.path().join("net.d");
    for _ in 0..2 {
        prepare(&instance("10.0.1.230\n10.0.1.17").await, &cni).await;
        let ptp = &written(&cni)["plugins"][0];
        assert_eq!(ptp["type"], "ptp");
        assert_eq!(ptp["mtu"], USUAL_MTU);
        assert_eq!(
            ptp["ipam"]["addresses"][0],
            json!({ "address": "10.0.1.230/8", "gateway": "10.0.1.17" })
        );
    }
    assert_eq!(
        fs::read_dir(&cni).expect("folder").count(),
        1,
        "nothing half written is left"
    );
}

/// Two configurations would be a matter of the alphabet.
#[tokio::test]
async fn an_image_with_a_network_of_its_own_keeps_it_and_one_address_makes_none() {
    let folder = tempfile::tempdir().expect("folder");
    prepare(&instance("10.0.1.17").await, folder.path()).await;
    assert!(!folder.path().join(FILE).exists());
    fs::write(folder.path().join("20-mine.conf"), "{}").expect("write");
    prepare(&instance("10.0.1.17\n10.0.1.230").await, folder.path()).await;
    assert!(!folder.path().join(FILE).exists());
}

/// A pod must be known by its own address inside, and reach the world from an instance with a public one.
#[test]
fn packets_keep_the_pods_address_within_its_private_network() {
    for (pod, subnet_bits, expected) in [
        ("10.0.1.230", 24, "10.0.1.230/8"),
        ("172.31.9.2", 20, "172.31.9.2/12"),
        ("172.32.9.2", 20, "172.32.9.2/20"),
        ("192.168.3.4", 28, "192.168.3.4/16"),
        ("100.64.3.4", 28, "100.64.3.4/10"),
        ("100.128.3.4", 28, "100.128.3.4/28"),
    ] {
        let addresses = Addresses {
            mac: String::new(),
            primary: Ipv4Addr::new(10, 0, 1, 17),
            secondary: Vec::new(),
            subnet_bits,
        };
        let text = configuration(&addresses, pod.parse().expect("address"), 1500);
        assert!(text.contains(&format!("\"{expected}\"")), "{text}");
    }
}

#[test]
fn the_interface_that_claims_an_address_is_found_in_the_words_of_ip() {
    let shown =
        "2: ens5    inet 10.0.1.230/24 metric 512 scope global secondary ens5\\       valid_lft forever\n";
    assert_eq!(on(shown), Some(("ens5", "10.0.1.230/24")));
    assert_eq!(on(""), None);
    assert!(is_claimed(Ipv4Addr::LOCALHOST) && !is_claimed(Ipv4Addr::new(203, 0, 113, 7)));
}
