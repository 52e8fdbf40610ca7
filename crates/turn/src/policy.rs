//! What Python decides: who may allocate, and which peers may be reached. Replaced as a whole, never edited.

use crate::auth::UserKeys;
use crate::rules::PeerRules;
use moim_wire::stun::user_hash;
use std::collections::HashMap;

/// How many shared secrets are accepted at once; each costs one HMAC per unknown user name.
pub const MAX_SECRETS: usize = 8;

/// One consistent set of credentials and peer rules.
pub struct Policy {
    pub(crate) users: HashMap<String, UserKeys>,
    /// USERHASH → user name.
    pub(crate) hashes: HashMap<[u8; 32], String>,
    pub(crate) secrets: Vec<Vec<u8>>,
    pub(crate) rules: PeerRules,
}

impl Policy {
    /// `realm` is what the keys of `users` were made with. Secrets beyond [`MAX_SECRETS`] are left out.
    pub fn new(
        realm: &str,
        users: impl IntoIterator<Item = (String, UserKeys)>,
        secrets: &[Vec<u8>],
        rules: PeerRules,
    ) -> Self {
        let users: HashMap<_, _> = users.into_iter().collect();
        let hashes = users
            .keys()
            .map(|user| (user_hash(user, realm), user.clone()))
            .collect();
        let secrets = secrets.iter().take(MAX_SECRETS).cloned().collect();
        Self {
            users,
            hashes,
            secrets,
            rules,
        }
    }
}
