//! The vault: keys, sale secrets, the customer behind each pseudonym, the admin tokens, the block list and what the sales' pages show. In one synced file of mode 0600 for a
//! deployment of one process, in PostgreSQL for one whose processes share it.
//!
//! What a call has returned is durable. Nothing here is derived from a chain, so nothing here can be rebuilt; a purchase never
//! reads it.

mod blocks;
mod postgres;
mod service;
mod showcase;
mod sqlite;
mod tokens;

use std::fs::File;
use std::io;
use std::path::Path;

use aws_lc_rs::digest;
use domain::{Pseudonym, Role, SaleId, SaleOrdinal};

pub use self::blocks::{KeptBlock, KeptBlocks};
pub use self::postgres::{PostgresOptions, PostgresVault};
pub use self::service::{CustomerError, VaultService};
pub use self::showcase::{KeptPicture, KeptShowcases, PictureFile};
pub use self::sqlite::Vault;
pub use self::tokens::{AdminToken, AdminTokens, NewAdminToken};
use crate::store::StoreError;

/// Where the vault is kept. Blocking; one caller at a time.
///
/// Holds for every store:
/// - What a call has returned is durable, and every process that shares the vault sees it.
/// - Of rivals, one wins and the others get what it wrote: keys, secrets and the first token are made once.
/// - Every call may be repeated. After an error whose outcome is unknown (see [`StoreError`]) the repetition finds what the first try
///   wrote, except that [`VaultStore::rotate_pass_key`] may rotate twice and [`VaultStore::create_admin_token`] may leave a token that
///   nobody has seen.
pub trait VaultStore: Send {
    /// The deployment's keys; [`VaultError::KeysIncomplete`] when one is missing.
    fn deployment_keys(&mut self) -> Result<DeploymentKeys, VaultError>;

    /// Makes a new pass key the active one; passes of the earlier keys stay valid. Gives its id, or
    /// [`VaultError::KeyIdsExhausted`].
    fn rotate_pass_key(&mut self) -> Result<u8, VaultError>;

    /// The secrets of the sale of that name, made and synced now if there are none. Whether its chain exists is for the
    /// caller to see: after a crash between the two, the same secrets come back.
    fn register_sale(&mut self, name: &str) -> Result<SaleSecrets, VaultError>;

    /// The secrets of every registered sale by ascending ordinal.
    fn sales(&mut self) -> Result<Vec<SaleSecrets>, VaultError>;

    /// The customers' keys, in the batch's order. Customers and pseudonyms that are new are written in one transaction and
    /// synced before it returns; a batch of known ones writes nothing. The first pseudonym that stands for somebody else already
    /// refuses the whole batch: [`VaultError::PseudonymTaken`].
    fn ensure_customers(&mut self, batch: &[NewCustomer]) -> Result<Vec<Secret>, VaultError>;

    /// The customer behind a pseudonym, if the map has it.
    fn customer_of(&mut self, sale: SaleOrdinal, pseudonym: Pseudonym) -> Result<Option<KnownCustomer>, VaultError>;

    /// Deletes a customer's key and every pseudonym of theirs, in one transaction; says whether there was such a customer. Without the
    /// key nobody can read the private parts of their records any more.
    fn erase_customer(&mut self, issuer: &str, subject: &str) -> Result<bool, VaultError>;

    /// Makes a sale's customers unknown for good: replaces its pseudonym key, deletes its pseudonyms, and the customers who are in no other
    /// sale. Says whether it was done now, and not before. One that was not finished is done again by the next call.
    fn anonymise_sale(&mut self, sale: SaleOrdinal) -> Result<bool, VaultError>;

    /// How many customers have been erased so far, by themselves or with a sale. What another process remembers of customers holds while this does not change.
    fn erasures(&mut self) -> Result<u64, VaultError>;

    /// What the sales' pages show, without the pictures' bytes, and which human checks the sales have.
    fn showcases(&mut self) -> Result<KeptShowcases, VaultError>;

    /// How many changes there have been to what [`VaultStore::showcases`] gives. What another process remembers of it holds while this does
    /// not change.
    fn showcase_changes(&mut self) -> Result<u64, VaultError>;

    /// Keeps the settings of a sale's showcase, in place of those it had.
    fn set_showcase(&mut self, sale: SaleOrdinal, settings: &str) -> Result<(), VaultError>;

    /// Keeps the picture of a sale's item, in place of the one it had; without files it has none afterwards. `id` is made of the files.
    fn set_picture(&mut self, sale: SaleOrdinal, item: u16, id: &str, files: &[PictureFile]) -> Result<(), VaultError>;

    /// Keeps the name of a sale's human check, in place of the one it had; without a name it has none afterwards.
    fn set_human_check(&mut self, sale: SaleOrdinal, name: Option<&str>) -> Result<(), VaultError>;

    /// One file's bytes, whichever item it belongs to.
    fn picture(&mut self, id: &str, width: u32, format: &str) -> Result<Option<Vec<u8>>, VaultError>;

    /// The block list.
    fn blocks(&mut self) -> Result<KeptBlocks, VaultError>;

    /// How many changes there have been to the block list. What another process remembers of it holds while this does not change.
    fn block_changes(&mut self) -> Result<u64, VaultError>;

    /// Keeps an entry of the block list, in place of the one of its id. Those that have expired when it was made are forgotten with it.
    fn put_block(&mut self, block: &KeptBlock) -> Result<(), VaultError>;

    /// Forgets the entry of that id and gives what was kept of it, if there was one.
    fn remove_block(&mut self, id: &str) -> Result<Option<KeptBlock>, VaultError>;

    /// The admin tokens as they stand.
    fn admin_tokens(&mut self) -> Result<AdminTokens, VaultError>;

    /// Creates an owner's token and writes it to a new file of mode 0600, if there is none that is believed now; says whether it did.
    /// The token does not expire. A file that a crash left without its token in the vault is replaced;
    /// [`VaultError::File`] when it cannot be written, and then there is no token either.
    fn first_admin_token(&mut self, path: &Path) -> Result<bool, VaultError>;

    /// Creates a token, believed until `expires_at` (Unix milliseconds). Those that have expired are forgotten with it.
    fn create_admin_token(&mut self, label: &str, role: Role, expires_at: u64) -> Result<NewAdminToken, VaultError>;

    /// Forgets the token of that id and gives what was kept of it; [`VaultError::TokenUnknown`], [`VaultError::LastOwner`].
    fn revoke_admin_token(&mut self, id: &str) -> Result<AdminToken, VaultError>;
}

/// 32 secret bytes.
pub type Secret = [u8; 32];

/// Why the vault could not do what it was asked. Every call may be repeated; a [`StoreError`] at a commit leaves unknown
/// whether it took effect, all else is definite and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The file or the database server.
    #[error("vault: {0}")]
    Store(#[from] StoreError),
    /// The file or its folder, before SQLite saw it; or the file of the first admin token.
    #[error("{0}")]
    File(String),
    /// The system gives no random bytes.
    #[error("the system's random source failed")]
    Random,
    /// The keys in the vault are incomplete; it has been tampered with or restored in part.
    #[error("vault: the deployment's keys are incomplete")]
    KeysIncomplete,
    /// All 256 ids of pass keys are taken.
    #[error("no id is left for another pass key")]
    KeyIdsExhausted,
    /// It belongs to another cluster.
    #[error(
        "vault: this database belongs to the cluster {found:?}, ours is {ours:?}; set cluster.name to that name, or postgres.database to a \
         database of its own"
    )]
    OtherCluster {
        /// Whose it is.
        found: String,
        /// Who we are.
        ours: String,
    },
    /// No token has that id.
    #[error("no admin token has this id")]
    TokenUnknown,
    /// Nobody could give out tokens without it.
    #[error("this is the only token of an owner that has not expired")]
    LastOwner,
    /// A pseudonym stands for another customer already.
    #[error("a pseudonym of sale {} stands for another customer", .0.0)]
    PseudonymTaken(SaleOrdinal),
}

/// A key that signs or verifies passes.
#[derive(Clone, PartialEq, Eq)]
pub struct PassKey {
    /// Stands in every pass that it signed.
    pub id: u8,
    /// Whether new passes are signed with it; true for exactly one.
    pub active: bool,
    /// The key.
    pub secret: Secret,
}

/// The keys of the whole deployment. They have no `Debug` form, so that no log can show them.
#[derive(Clone, PartialEq, Eq)]
pub struct DeploymentKeys {
    /// Keys of passes by ascending id, at least one.
    pub pass_keys: Vec<PassKey>,
    /// Encrypts and authenticates purchase and order ids; never rotates.
    pub id_key: Secret,
    /// Keys the hash of (issuer, subject) in passes.
    pub identity_hash_key: Secret,
}

/// A row of the deployment's keys, as both stores keep it.
struct KeyRow {
    purpose: String,
    key: PassKey,
}

impl DeploymentKeys {
    /// Tells this vault from others, and nothing of its keys: a hash, in 16 hexadecimal digits.
    pub fn vault_id(&self) -> String {
        let mut hashed = digest::Context::new(&digest::SHA256);
        hashed.update(b"doorbuster vault\0");
        hashed.update(&self.id_key);
        data_encoding::HEXLOWER.encode(&hashed.finish().as_ref()[..8])
    }

    /// Puts the keys together from all rows, which come by ascending id.
    fn of_rows(rows: Vec<KeyRow>) -> Result<Self, VaultError> {
        let single = |purpose: &str| {
            let found = rows.iter().find(|row| row.purpose == purpose);
            found.map(|row| row.key.secret).ok_or(VaultError::KeysIncomplete)
        };
        let (id_key, identity_hash_key) = (single("id")?, single("identity_hash")?);
        let passes = rows.into_iter().filter(|row| row.purpose == "pass");
        let pass_keys: Vec<PassKey> = passes.map(|row| row.key).collect();
        if pass_keys.iter().filter(|key| key.active).count() != 1 {
            return Err(VaultError::KeysIncomplete);
        }
        Ok(Self { pass_keys, id_key, identity_hash_key })
    }
}

/// What only the deployment knows about a sale. No `Debug` form either.
#[derive(Clone, PartialEq, Eq)]
pub struct SaleSecrets {
    /// The deployment's number of the sale, from 1.
    pub ordinal: SaleOrdinal,
    /// The shop's name of it.
    pub name: String,
    /// The id in its chain.
    pub sale: SaleId,
    /// Slots are drawn from it.
    pub slot_secret: Secret,
    /// Pseudonyms are made with it.
    pub pseudonym_key: Secret,
    /// Ed25519 seed of the key that signs the chain's heads.
    pub signing_seed: Secret,
    /// When it was registered, Unix milliseconds.
    pub created_at: u64,
    /// When its customers became unknown, Unix milliseconds; from then on the pseudonym key is not the one that its chain commits to.
    pub anonymised_at: Option<u64>,
}

/// A customer who takes a pass.
#[derive(Clone, PartialEq, Eq)]
pub struct NewCustomer {
    /// The sale.
    pub sale: SaleOrdinal,
    /// The customer as that sale's chain shows them.
    pub pseudonym: Pseudonym,
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
}

/// A customer as the vault knows them.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownCustomer {
    /// The tokens' `iss`.
    pub issuer: String,
    /// The tokens' `sub`.
    pub subject: String,
    /// Their key.
    pub key: Secret,
}

/// What a fresh vault gets a key for.
const KEY_PURPOSES: [&str; 3] = ["pass", "id", "identity_hash"];

fn fill_random(bytes: &mut [u8]) -> Result<(), VaultError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| VaultError::Random)
}

fn random_sale_id() -> Result<SaleId, VaultError> {
    let mut sale = SaleId([0; 16]);
    fill_random(&mut sale.0)?;
    Ok(sale)
}

fn random_secret() -> Result<Secret, VaultError> {
    let mut secret = [0; 32];
    fill_random(&mut secret)?;
    Ok(secret)
}

/// Makes a new file's name durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
