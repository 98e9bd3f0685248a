//! The addresses of this instance, as EC2 gave them.

use std::net::Ipv4Addr;

use kip_cell_api::{MetadataKind, MetadataService};

use super::client::Connection;
use super::ec2::Session;

/// The addresses of the instance's first interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The interface's hardware address, in lower case.
    pub(crate) mac: String,
    /// The instance's own.
    pub(crate) primary: Ipv4Addr,
    /// Those beside it.
    pub(crate) secondary: Vec<Ipv4Addr>,
    /// Bits of the subnet's network.
    pub(crate) subnet_bits: u8,
}

/// Asks once.
///
/// # Errors
/// When the service does not answer, or says what cannot be understood: the message has the path.
pub(crate) async fn addresses(service: &MetadataService) -> Result<Addresses, String> {
    if service.kind != MetadataKind::Ec2 {
        return Err("the metadata service is of a kind this agent does not know".into());
    }
    let mut connection = Connection::open(&service.endpoint).await?;
    let mut session = Session::new(service.endpoint.clone());
    let mut answers = Vec::new();
    let mut paths = vec!["mac".to_owned(), "local-ipv4".to_owned()];
    while let Some(path) = paths.get(answers.len()) {
        let path = format!("/latest/meta-data/{path}");
        let answer = session.get(&mut connection, &path).await?;
        answers.push(answer.ok_or_else(|| format!("{path}: there is no such thing"))?);
        if let [mac] = answers.as_slice() {
            let of_interface = format!("network/interfaces/macs/{}", mac.trim());
            paths.extend(
                ["local-ipv4s", "subnet-ipv4-cidr-block"].map(|name| format!("{of_interface}/{name}")),
            );
        }
    }
    match answers.as_slice() {
        [mac, primary, all, subnet] => understood(mac, primary, all, subnet),
        _ => Err("not everything was answered".into()),
    }
}

fn understood(mac: &str, primary: &str, all: &str, subnet: &str) -> Result<Addresses, String> {
    let address = |text: &str| {
        let text = text.trim();
        text.parse::<Ipv4Addr>()
            .map_err(|_| format!("{text:?} is no IPv4 address"))
    };
    let primary = address(primary)?;
    let all = all
        .split_whitespace()
        .map(address)
        .collect::<Result<Vec<_>, _>>()?;
    let subnet_bits = subnet
        .trim()
        .split_once('/')
        .and_then(|(_, bits)| bits.parse().ok())
        .filter(|bits| *bits <= 32)
        .ok_or_else(|| format!("{subnet:?} is no network"))?;
    Ok(Addresses {
        mac: mac.trim().to_ascii_lowercase(),
        primary,
        secondary: all.into_iter().filter(|address| *address != primary).collect(),
        subnet_bits,
    })
}
