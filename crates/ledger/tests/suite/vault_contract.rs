//! What every vault promises, run against each store: durable before it returns, made once, all or nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::place::{InFile, InPostgres, Place, customer};
use domain::{Role, SaleOrdinal};
use ledger::{KeptBlock, KeptPicture, KnownCustomer, NewCustomer, PictureFile, VaultError};

macro_rules! for_each_store {
    ($($promise:ident)*) => {
        mod in_a_file {
            $(#[test] fn $promise() { super::$promise(&super::InFile::new()) })*
        }
        mod in_postgres {
            $(#[test] fn $promise() { super::$promise(&super::InPostgres::new()) })*
        }
    };
}

for_each_store! {
    deployment_keys_are_made_once_and_differ
    a_rotated_pass_key_stays_valid_and_one_is_active
    a_sale_is_registered_once_and_its_secrets_last
    customers_are_ensured_once_for_all_sales
    a_pseudonym_never_changes_its_customer_and_the_batch_is_all_or_nothing
    the_first_admin_token_is_written_once_with_mode_0600
    an_expired_admin_token_is_refused
    a_created_token_has_its_role_until_it_is_revoked
    the_last_owner_stays_and_a_lost_one_is_made_up_for_at_the_next_start
    a_token_file_that_cannot_be_written_leaves_no_token_behind
    a_vault_that_lost_a_key_is_refused
    the_first_refused_of_a_batch_is_named
    a_batch_may_name_a_customer_twice_and_be_empty
    an_erased_customer_is_gone_from_every_sale_and_nobody_else_is
    an_anonymised_sale_knows_nobody_and_other_sales_do
    a_human_check_is_set_and_taken_away_and_lasts
    a_showcase_is_replaced_as_a_whole_and_lasts
    a_picture_is_replaced_and_removed_with_all_its_files
    a_block_is_kept_replaced_and_removed_and_an_expired_one_is_forgotten_with_the_next
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn deployment_keys_are_made_once_and_differ(place: &dyn Place) {
    let keys = place.open().deployment_keys().unwrap();
    assert!(keys == place.open().deployment_keys().unwrap());
    let mut all = vec![keys.id_key, keys.identity_hash_key, keys.pass_keys[0].secret];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 3);
    assert_eq!(keys.pass_keys.len(), 1);
    assert!(keys.pass_keys[0].active);
}

fn a_rotated_pass_key_stays_valid_and_one_is_active(place: &dyn Place) {
    let mut vault = place.open();
    let first = vault.deployment_keys().unwrap().pass_keys[0].secret;
    assert_eq!(vault.rotate_pass_key().unwrap(), 1);
    drop(vault);
    let keys = place.open().deployment_keys().unwrap().pass_keys;
    let ids: Vec<_> = keys.iter().map(|key| (key.id, key.active)).collect();
    assert_eq!(ids, [(0, false), (1, true)]);
    assert!(keys[0].secret == first && keys[1].secret != first);
}

fn a_sale_is_registered_once_and_its_secrets_last(place: &dyn Place) {
    let mut vault = place.open();
    let one = vault.register_sale("one").unwrap();
    let two = vault.register_sale("two").unwrap();
    assert_eq!((one.ordinal, two.ordinal), (SaleOrdinal(1), SaleOrdinal(2)));
    assert!(one.sale != two.sale && one.slot_secret != two.slot_secret && one.pseudonym_key != one.signing_seed);
    drop(vault);
    let mut vault = place.open();
    assert!(vault.register_sale("one").unwrap() == one);
    assert!(vault.sales().unwrap() == [one, two]);
    assert_eq!(vault.register_sale("three").unwrap().ordinal, SaleOrdinal(3));
}

fn customers_are_ensured_once_for_all_sales(place: &dyn Place) {
    let mut vault = place.open();
    let batch = [customer(1, 1), customer(1, 2), customer(1, 1)];
    let keys = vault.ensure_customers(&batch).unwrap();
    assert!(keys[0] == keys[2] && keys[0] != keys[1]);
    drop(vault);
    let mut vault = place.open();
    assert_eq!(vault.ensure_customers(&[customer(2, 2), customer(1, 1)]).unwrap(), [keys[1], keys[0]]);
    let (issuer, subject) = ("https://shop.example".to_owned(), "shopper-2".to_owned());
    let shopper = KnownCustomer { issuer, subject, key: keys[1] };
    assert!(vault.customer_of(SaleOrdinal(1), customer(1, 2).pseudonym).unwrap().as_ref() == Some(&shopper));
    assert!(vault.customer_of(SaleOrdinal(2), customer(2, 2).pseudonym).unwrap().as_ref() == Some(&shopper));
    assert!(vault.customer_of(SaleOrdinal(2), customer(1, 2).pseudonym).unwrap().is_none());
}

fn a_pseudonym_never_changes_its_customer_and_the_batch_is_all_or_nothing(place: &dyn Place) {
    let mut vault = place.open();
    vault.ensure_customers(&[customer(1, 1)]).unwrap();
    let thief = NewCustomer { pseudonym: customer(1, 1).pseudonym, ..customer(1, 2) };
    let refused = vault.ensure_customers(&[customer(1, 3), thief]).unwrap_err();
    assert_eq!(refused, VaultError::PseudonymTaken(SaleOrdinal(1)));
    assert!(vault.customer_of(SaleOrdinal(1), customer(1, 3).pseudonym).unwrap().is_none());
}

fn an_anonymised_sale_knows_nobody_and_other_sales_do(place: &dyn Place) {
    let mut vault = place.open();
    let secrets = ["one", "two"].map(|name| vault.register_sale(name).unwrap());
    let (only_one, both) = ([customer(1, 1)], [customer(1, 2), customer(2, 2)]);
    let keys = vault.ensure_customers(&[&only_one[..], &both[..]].concat()).unwrap();
    assert!(vault.anonymise_sale(secrets[0].ordinal).unwrap());
    assert!(!vault.anonymise_sale(secrets[0].ordinal).unwrap(), "once");
    assert!(!vault.anonymise_sale(SaleOrdinal(9)).unwrap(), "there is no such sale");
    assert_eq!(vault.erasures().unwrap(), 1);
    drop(vault);
    let mut vault = place.open();
    let after = vault.sales().unwrap();
    assert!(after[0].anonymised_at.is_some() && after[0].pseudonym_key != secrets[0].pseudonym_key);
    assert!(after[0].slot_secret == secrets[0].slot_secret && after[0].signing_seed == secrets[0].signing_seed);
    assert!(after[1] == secrets[1]);
    for gone in [&only_one[0], &both[0]] {
        assert!(vault.customer_of(gone.sale, gone.pseudonym).unwrap().is_none());
    }
    assert!(vault.customer_of(both[1].sale, both[1].pseudonym).unwrap().is_some());
    let again = vault.ensure_customers(&[customer(2, 1), customer(2, 2)]).unwrap();
    assert!(again[0] != keys[0], "who was in that sale only is new");
    assert!(again[1] == keys[1]);
}

fn the_first_admin_token_is_written_once_with_mode_0600(place: &dyn Place) {
    let file = place.path("admin-token");
    let mut vault = place.open();
    std::fs::write(&file, "left by a crash before its hash was stored").unwrap();
    assert!(vault.first_admin_token(&file).unwrap());
    assert_eq!(mode(&file), 0o600);
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(token.starts_with("da_") && token.len() == 46, "{token}");
    assert_eq!(vault.admin_tokens().unwrap().admit(&token, 0), Some(Role::Owner));
    for wrong in ["", "da_", &token[..45], &format!("{token}x")] {
        assert_eq!(vault.admin_tokens().unwrap().admit(wrong, 0), None);
    }
    std::fs::remove_file(&file).unwrap();
    drop(vault);
    let mut vault = place.open();
    assert!(!vault.first_admin_token(&file).unwrap(), "a token exists");
    assert!(!file.exists());
    assert_eq!(vault.admin_tokens().unwrap().admit(&token, u64::MAX), Some(Role::Owner));
}

fn an_expired_admin_token_is_refused(place: &dyn Place) {
    let file = place.path("admin-token");
    let mut vault = place.open();
    vault.first_admin_token(&file).unwrap();
    place.execute("UPDATE admin_tokens SET expires_at = 1000");
    let token = std::fs::read_to_string(&file).unwrap();
    let tokens = vault.admin_tokens().unwrap();
    assert_eq!([999, 1_000].map(|now| tokens.admit(token.trim(), now)), [Some(Role::Owner), None]);
}

/// A time that does not come.
const NEVER: u64 = 1 << 50;

fn a_created_token_has_its_role_until_it_is_revoked(place: &dyn Place) {
    let mut vault = place.open();
    vault.first_admin_token(&place.path("admin-token")).unwrap();
    let made: Vec<_> =
        Role::ALL.iter().map(|role| vault.create_admin_token(role.name(), *role, NEVER).unwrap()).collect();
    drop(vault);
    let mut vault = place.open();
    let tokens = vault.admin_tokens().unwrap();
    for (new, role) in made.iter().zip(Role::ALL) {
        assert!(new.token.starts_with("da_") && new.kept.id().len() == 16);
        assert_eq!([NEVER - 1, NEVER].map(|now| tokens.admit(&new.token, now)), [Some(role), None]);
    }
    let listed: Vec<_> = tokens.list().into_iter().map(|token| (token.label, token.role, token.expires_at)).collect();
    assert_eq!(listed.len(), 5);
    assert!(listed.contains(&("first".to_owned(), Role::Owner, None)));
    assert!(listed.contains(&("cashier".to_owned(), Role::Cashier, Some(NEVER))));

    let cashier = &made[2];
    assert!(vault.revoke_admin_token(&cashier.kept.id()).unwrap() == cashier.kept);
    assert_eq!(vault.revoke_admin_token(&cashier.kept.id()).err(), Some(VaultError::TokenUnknown));
    for unknown in ["", "0123456789abcdef", &made[0].kept.id()[..8], &made[0].token] {
        assert_eq!(vault.revoke_admin_token(unknown).err(), Some(VaultError::TokenUnknown));
    }
    let tokens = place.open().admin_tokens().unwrap();
    assert_eq!((tokens.admit(&cashier.token, 0), tokens.list().len()), (None, 4));

    place.execute("UPDATE admin_tokens SET expires_at = 1000 WHERE label = 'viewer'");
    vault.create_admin_token("another", Role::Viewer, NEVER).unwrap();
    let labels: Vec<_> = vault.admin_tokens().unwrap().list().into_iter().map(|token| token.label).collect();
    assert!(labels.len() == 4 && !labels.contains(&"viewer".to_owned()), "the expired one is forgotten: {labels:?}");
}

fn the_last_owner_stays_and_a_lost_one_is_made_up_for_at_the_next_start(place: &dyn Place) {
    let file = place.path("admin-token");
    let mut vault = place.open();
    vault.first_admin_token(&file).unwrap();
    vault.create_admin_token("dashboard", Role::Viewer, NEVER).unwrap();
    let tokens = vault.admin_tokens().unwrap().list();
    let first = tokens.iter().find(|token| token.label == "first").unwrap().id();
    assert_eq!(vault.revoke_admin_token(&first).err(), Some(VaultError::LastOwner));
    let second = vault.create_admin_token("second", Role::Owner, NEVER).unwrap();
    vault.revoke_admin_token(&first).unwrap();
    assert_eq!(vault.revoke_admin_token(&second.kept.id()).err(), Some(VaultError::LastOwner));
    assert!(!vault.first_admin_token(&file).unwrap(), "there is an owner");

    place.execute("UPDATE admin_tokens SET expires_at = 1000 WHERE label = 'second'");
    assert!(vault.first_admin_token(&file).unwrap(), "nobody could give out tokens");
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(vault.admin_tokens().unwrap().admit(token.trim(), NEVER), Some(Role::Owner));
    vault.revoke_admin_token(&second.kept.id()).unwrap();
}

fn a_token_file_that_cannot_be_written_leaves_no_token_behind(place: &dyn Place) {
    let mut vault = place.open();
    let refused = vault.first_admin_token(&place.path("missing/admin-token")).unwrap_err();
    assert!(matches!(refused, VaultError::File(_)), "{refused}");
    assert!(vault.first_admin_token(&place.path("admin-token")).unwrap());
}

fn a_vault_that_lost_a_key_is_refused(place: &dyn Place) {
    drop(place.open());
    place.execute("DELETE FROM deployment_keys WHERE purpose = 'identity_hash'");
    assert_eq!(place.try_open().err(), Some(VaultError::KeysIncomplete));
}

fn the_first_refused_of_a_batch_is_named(place: &dyn Place) {
    let mut vault = place.open();
    vault.ensure_customers(&[customer(1, 1), customer(2, 1)]).unwrap();
    let thief = |sale| NewCustomer { pseudonym: customer(sale, 1).pseudonym, ..customer(sale, 2) };
    let refused = vault.ensure_customers(&[customer(1, 1), thief(2), thief(1)]).unwrap_err();
    assert_eq!(refused, VaultError::PseudonymTaken(SaleOrdinal(2)));
    let rivals = [customer(3, 5), NewCustomer { pseudonym: customer(3, 5).pseudonym, ..customer(3, 6) }];
    assert_eq!(vault.ensure_customers(&rivals).unwrap_err(), VaultError::PseudonymTaken(SaleOrdinal(3)));
    assert!(vault.customer_of(SaleOrdinal(3), customer(3, 5).pseudonym).unwrap().is_none());
}

fn a_batch_may_name_a_customer_twice_and_be_empty(place: &dyn Place) {
    let mut vault = place.open();
    assert!(vault.ensure_customers(&[]).unwrap().is_empty());
    let renamed = NewCustomer { issuer: "https://other.example".to_owned(), ..customer(1, 8) };
    let batch = [customer(1, 7), customer(2, 7), customer(1, 7), NewCustomer { sale: SaleOrdinal(9), ..renamed }];
    let keys = vault.ensure_customers(&batch).unwrap();
    assert!(keys[0] == keys[1] && keys[0] == keys[2] && keys[0] != keys[3]);
    // The same subject of another shop is somebody else.
    let known_and_new = vault.ensure_customers(&[customer(1, 8), customer(1, 7)]).unwrap();
    assert!(known_and_new[0] != keys[3] && known_and_new[1] == keys[0]);
}

fn an_erased_customer_is_gone_from_every_sale_and_nobody_else_is(place: &dyn Place) {
    let mut vault = place.open();
    let batch = [customer(1, 1), customer(2, 1), customer(1, 2)];
    let keys = vault.ensure_customers(&batch).unwrap();
    let (issuer, subject) = (&batch[0].issuer, &batch[0].subject);
    assert!(!vault.erase_customer("https://other.example", subject).unwrap(), "another shop's");
    assert!(!vault.erase_customer(issuer, "nobody").unwrap());
    assert_eq!(vault.erasures().unwrap(), 0);
    assert!(vault.erase_customer(issuer, subject).unwrap());
    assert!(!vault.erase_customer(issuer, subject).unwrap(), "once");
    assert_eq!(vault.erasures().unwrap(), 1);
    drop(vault);
    let mut vault = place.open();
    for gone in &batch[..2] {
        assert!(vault.customer_of(gone.sale, gone.pseudonym).unwrap().is_none());
    }
    assert!(vault.customer_of(SaleOrdinal(1), batch[2].pseudonym).unwrap().is_some());
    let again = vault.ensure_customers(&batch).unwrap();
    assert!(again[0] != keys[0] && again[0] == again[1], "whoever comes back is new");
    assert!(again[2] == keys[2]);
}

fn a_showcase_is_replaced_as_a_whole_and_lasts(place: &dyn Place) {
    let mut vault = place.open();
    assert_eq!((vault.showcases().unwrap(), vault.showcase_changes().unwrap()), Default::default());
    vault.set_showcase(SaleOrdinal(1), "{\"origins\":[]}").unwrap();
    vault.set_showcase(SaleOrdinal(2), "{\"button\":{\"de\":\"Für dich ☃\"}}").unwrap();
    vault.set_showcase(SaleOrdinal(1), "{}").unwrap();
    drop(vault);
    let mut vault = place.open();
    let found = vault.showcases().unwrap();
    assert_eq!((found.changes, vault.showcase_changes().unwrap()), (3, 3));
    let settings: Vec<_> = found.settings.iter().map(|(sale, settings)| (sale.0, settings.as_str())).collect();
    assert_eq!(settings, [(1, "{}"), (2, "{\"button\":{\"de\":\"Für dich ☃\"}}")]);
}

fn a_human_check_is_set_and_taken_away_and_lasts(place: &dyn Place) {
    let mut vault = place.open();
    vault.set_human_check(SaleOrdinal(1), Some("answer")).unwrap();
    vault.set_human_check(SaleOrdinal(2), Some("answer")).unwrap();
    vault.set_human_check(SaleOrdinal(3), Some("answer")).unwrap();
    vault.set_human_check(SaleOrdinal(2), Some("static")).unwrap();
    vault.set_human_check(SaleOrdinal(3), None).unwrap();
    vault.set_showcase(SaleOrdinal(1), "{}").unwrap();
    drop(vault);
    let found = place.open().showcases().unwrap();
    assert_eq!(found.changes, 6);
    let checks: Vec<_> = found.human_checks.iter().map(|(sale, name)| (sale.0, name.as_str())).collect();
    assert_eq!(checks, [(1, "answer"), (2, "static")]);
}

fn a_block_is_kept_replaced_and_removed_and_an_expired_one_is_forgotten_with_the_next(place: &dyn Place) {
    let block = |id: &str, kind: &str, created_at: u64, expires_at: Option<u64>| KeptBlock {
        id: id.to_owned(),
        kind: kind.to_owned(),
        target: format!("target of {id}"),
        reason: "zählte Stühle ☃".to_owned(),
        made_by: "0123456789abcdef".to_owned(),
        created_at,
        expires_at,
    };
    let mut vault = place.open();
    assert_eq!((vault.blocks().unwrap(), vault.block_changes().unwrap()), Default::default());
    let (forever, short) = (block("b", "address", 10, None), block("a", "customer", 20, Some(30)));
    vault.put_block(&forever).unwrap();
    vault.put_block(&short).unwrap();
    drop(vault);
    let mut vault = place.open();
    let found = vault.blocks().unwrap();
    assert_eq!((found.changes, vault.block_changes().unwrap()), (2, 2));
    assert_eq!(found.blocks, [forever.clone(), short.clone()], "by age");

    let longer = block("b", "address", 29, Some(u64::MAX >> 1));
    vault.put_block(&longer).unwrap();
    assert_eq!(vault.blocks().unwrap().blocks, [short, longer.clone()]);
    let last = block("c", "address", 30, Some(40));
    vault.put_block(&last).unwrap();
    assert_eq!(vault.blocks().unwrap().blocks, [longer.clone(), last.clone()], "one is over");
    assert_eq!(vault.remove_block("b").unwrap(), Some(longer));
    assert_eq!(vault.remove_block("b").unwrap(), None);
    let mut vault = place.open();
    let found = vault.blocks().unwrap();
    assert!(found.changes >= 5);
    assert_eq!(found.blocks, [last]);
}

/// Files of some widths, each in two formats.
fn picture_files(widths: &[u32], byte: u8) -> Vec<PictureFile> {
    let file = |width: u32, format: &str| {
        let mut bytes = vec![byte; width as usize * 100];
        bytes.extend(format.as_bytes());
        PictureFile { width, height: width / 2, format: format.to_owned(), bytes }
    };
    // The wide ones first: the vault sorts them.
    widths.iter().rev().flat_map(|width| [file(*width, "webp"), file(*width, "jpg")]).collect()
}

fn a_picture_is_replaced_and_removed_with_all_its_files(place: &dyn Place) {
    let mut vault = place.open();
    let (one, two) = (picture_files(&[320, 640, 1_280], 1), picture_files(&[200], 2));
    vault.set_picture(SaleOrdinal(1), 0, "one", &one).unwrap();
    // The same picture beside another item.
    vault.set_picture(SaleOrdinal(1), 63, "one", &one).unwrap();
    vault.set_picture(SaleOrdinal(2), 0, "two", &two).unwrap();
    drop(vault);
    let mut vault = place.open();
    let found = vault.showcases().unwrap();
    assert_eq!(found.changes, 3);
    let kept = |id: &str, sizes: &[(u32, u32)]| KeptPicture { id: id.to_owned(), sizes: sizes.to_vec() };
    let wide = kept("one", &[(320, 160), (640, 320), (1_280, 640)]);
    let narrow = kept("two", &[(200, 100)]);
    let expected = [
        ((SaleOrdinal(1), 0), wide.clone()),
        ((SaleOrdinal(1), 63), wide.clone()),
        ((SaleOrdinal(2), 0), narrow.clone()),
    ];
    assert_eq!(found.pictures, expected.into());
    for file in &one {
        assert_eq!(vault.picture("one", file.width, &file.format).unwrap().as_ref(), Some(&file.bytes));
    }
    for (id, width, format) in [("one", 200, "webp"), ("one", 320, "png"), ("three", 320, "webp"), ("", 0, "")] {
        assert_eq!(vault.picture(id, width, format).unwrap(), None);
    }

    vault.set_picture(SaleOrdinal(1), 0, "two", &two).unwrap();
    assert!(vault.picture("one", 320, "webp").unwrap().is_some(), "the other item has it still");
    vault.set_picture(SaleOrdinal(1), 63, "", &[]).unwrap();
    assert_eq!(vault.picture("one", 320, "webp").unwrap(), None);
    vault.set_picture(SaleOrdinal(9), 0, "", &[]).unwrap();
    let found = vault.showcases().unwrap();
    assert_eq!(found.changes, 6);
    assert_eq!(found.pictures, [((SaleOrdinal(1), 0), narrow.clone()), ((SaleOrdinal(2), 0), narrow)].into());
}
