//! What everything here that speaks HTTP as a client has in common: whose server it is and where, as whom,
//! through which proxy, and whom to trust. The module proxy and the remote cache both do.

pub mod forward;
pub mod names;
pub mod netrc;
pub mod roots;
pub mod url;

use std::io::ErrorKind;

/// Whether a connection broke. Most likely it was kept open, and the server has closed it just now.
pub fn is_broken(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

/// The error, without the URLs that some of them have.
pub fn describe(e: &ureq::Error) -> String {
    match e {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "malformed URL".to_string(),
        ureq::Error::InvalidProxyUrl => "malformed HTTP proxy URL".to_string(),
        ureq::Error::ConnectProxyFailed(_) => "the HTTP proxy refused the connection".to_string(),
        other => other.to_string(),
    }
}
