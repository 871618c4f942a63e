//! What everything here that speaks HTTP as a client has in common: whose server it is and where, as whom,
//! through which proxy, and whom to trust. The module proxy and the remote cache both do.

pub mod forward;
pub mod names;
pub mod netrc;
pub mod roots;
pub mod url;
