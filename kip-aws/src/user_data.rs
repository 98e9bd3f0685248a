//! How user-data is sent to EC2: compressed where that is shorter, as cloud-init takes it on EC2, and in base64.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::{Compression, GzBuilder};
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::provider::UserData;

/// How many bytes of user-data EC2 would be sent: [`UserData::MAX_BYTES`] at most, before base64. Pure.
pub fn user_data_len(user_data: &UserData) -> usize {
    packed(user_data.as_bytes()).len()
}

/// As RunInstances takes it; none when there is none. Pure: equal arguments, equal text.
///
/// # Errors
/// `InvalidRequest` when EC2 would not take so much.
pub(crate) fn encoded(user_data: &UserData) -> Result<Option<String>> {
    let packed = packed(user_data.as_bytes());
    if packed.len() > UserData::MAX_BYTES {
        let message = format!(
            "user-data has {} bytes compressed, EC2 takes {}: shorten the file of `cells.cloudInitFile`",
            packed.len(),
            UserData::MAX_BYTES
        );
        return Err(Error::new(ErrorKind::InvalidRequest, "launch", message));
    }
    Ok((!packed.is_empty()).then(|| BASE64.encode(packed)))
}

/// The bytes that are sent: gzip with neither name nor time in it, or as they are when that is not longer.
fn packed(plain: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    // Writing to a Vec cannot fail.
    match gzip.write_all(plain).and_then(|()| gzip.finish()) {
        Ok(packed) if packed.len() < plain.len() => packed,
        _ => plain.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// EC2 refuses a repeated token with other bytes, and a cell that cannot read them never boots.
        #[test]
        fn what_is_sent_is_the_same_each_time_and_unpacks_to_what_was_meant(
            plain in proptest::collection::vec(any::<u8>(), 0..2000), times in 1_usize..20,
        ) {
            let user_data = UserData::new(plain.repeat(times));
            match encoded(&user_data) {
                Ok(text) => {
                    prop_assert_eq!(&encoded(&user_data).unwrap(), &text);
                    let sent = BASE64.decode(text.unwrap_or_default()).unwrap();
                    prop_assert!(sent.len() <= UserData::MAX_BYTES);
                    prop_assert_eq!(sent.len(), user_data_len(&user_data));
                    // A plain one may look like gzip by itself only if it was: then it is unpacked twice, as by cloud-init.
                    if sent != user_data.as_bytes() {
                        let mut unpacked = Vec::new();
                        flate2::read::GzDecoder::new(sent.as_slice()).read_to_end(&mut unpacked).unwrap();
                        prop_assert_eq!(unpacked, user_data.as_bytes());
                    }
                }
                Err(error) => {
                    prop_assert!(user_data_len(&user_data) > UserData::MAX_BYTES, "{}", error);
                }
            }
        }
    }

    #[test]
    fn more_than_ec2_takes_is_refused_by_what_is_sent_and_names_the_file_to_shorten() {
        assert!(encoded(&UserData::new(vec![b'x'; 100 * 1024])).is_ok());
        let error = encoded(&crate::testing::incompressible(17 * 1024)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(
            error.message().contains("17408 bytes") && error.message().contains("cloudInitFile"),
            "{error}"
        );
    }
}
