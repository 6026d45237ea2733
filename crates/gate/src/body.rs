//! The hash of what a purchase asks for, by which a retry is told from another wish under the same key.

use crate::keys::{first, hash};

/// Hash of a purchase's parsed fields, so that spacing and field order of the JSON do not matter.
///
/// The first 16 bytes of `SHA-256("doorbuster body v1" || fields)`, each field a tag byte and its value, little-endian:
/// 1 the item's index (u16), 2 the quantity (u32), 3 the coupon's keyed hash (u64). An absent field is omitted,
/// so a later version may add fields without changing the hashes of purchases that do not use them.
pub fn body_hash(item: u16, quantity: u32, coupon: Option<u64>) -> [u8; 16] {
    let item = item.to_le_bytes();
    let quantity = quantity.to_le_bytes();
    let hashed = match coupon {
        None => hash(&[b"doorbuster body v1", &[1], &item, &[2], &quantity]),
        Some(coupon) => hash(&[b"doorbuster body v1", &[1], &item, &[2], &quantity, &[3], &coupon.to_le_bytes()]),
    };
    first(&hashed)
}

#[cfg(test)]
mod tests {
    use super::body_hash;

    #[test]
    fn every_field_changes_the_hash_and_absence_is_not_emptiness() {
        let hashes = [
            body_hash(0, 1, None),
            body_hash(1, 1, None),
            body_hash(0, 2, None),
            body_hash(0, 1, Some(0)),
            body_hash(0, 1, Some(10)),
            body_hash(256, 1, None),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "hash {index} equals an earlier one");
        }
        assert_eq!(body_hash(3, 2, Some(7)), body_hash(3, 2, Some(7)));
    }
}
