//! How much of an agent's words is kept. An agent that lies, or was broken into, must not fill the controller's memory, a Cell or the
//! API server with them; gRPC alone would let 4 MiB through with each report.

/// Names, ids and references to images, in bytes. An image's is the longest: a name of 255, a tag of 128 and a digest of 71 beside a host.
pub(super) const NAME: usize = 1024;
/// Reasons in one word, in bytes: as many as Kubernetes takes.
pub(super) const REASON: usize = 128;
/// Messages, in bytes: as many as a kubelet keeps of a termination message.
pub(super) const MESSAGE: usize = 4096;
/// The cloud's words about an announcement, in bytes.
pub(super) const ANNOUNCEMENT: usize = 512;
/// Announcements of one report: EC2 has three kinds, and seldom two of one.
pub(super) const ANNOUNCEMENTS: usize = 16;
/// Events of one report, the newest: as many as an agent keeps.
pub(super) const EVENTS: usize = 64;
/// Addresses of a pod: one of each family are in use.
pub(super) const ADDRESSES: usize = 16;

/// At most so many bytes from the beginning, in whole characters.
pub(super) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        // Or the rest would be kept all the same.
        text.shrink_to_fit();
    }
    text
}
