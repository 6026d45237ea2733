//! The hash of what a purchase asks for, by which a retry is told from another wish under the same key.

use crate::keys::{first, hash};

/// Hash of a purchase's parsed fields, so that spacing and field order of the JSON do not matter.
///
/// The first 16 bytes of `SHA-256("doorbuster body v1" || fields)`, each field a tag byte and its value, little-endian:
/// 1 the item's index (u16), 2 the quantity (u32), 3 the coupon's keyed hash (u64), 4 the attributes' keyed hash (16 bytes). An absent
/// field is omitted, so a later version may add fields without changing the hashes of purchases that do not use them. The hash is public,
/// so what might be guessed comes in under a key.
pub fn body_hash(item: u16, quantity: u32, coupon: Option<u64>, attributes: Option<[u8; 16]>) -> [u8; 16] {
    let (item, quantity, coupon) = (item.to_le_bytes(), quantity.to_le_bytes(), coupon.map(u64::to_le_bytes));
    let mut fields: [&[u8]; 9] = [b"doorbuster body v1", &[1], &item, &[2], &quantity, &[], &[], &[], &[]];
    if let Some(coupon) = &coupon {
        fields[5..7].copy_from_slice(&[&[3], coupon]);
    }
    if let Some(attributes) = &attributes {
        fields[7..].copy_from_slice(&[&[4], attributes]);
    }
    first(&hash(&fields))
}

#[cfg(test)]
mod tests {
    use super::body_hash;

    #[test]
    fn every_field_changes_the_hash_and_absence_is_not_emptiness() {
        let hashes = [
            body_hash(0, 1, None, None),
            body_hash(1, 1, None, None),
            body_hash(0, 2, None, None),
            body_hash(0, 1, Some(0), None),
            body_hash(0, 1, Some(10), None),
            body_hash(256, 1, None, None),
            body_hash(0, 1, None, Some([0; 16])),
            body_hash(0, 1, None, Some([10; 16])),
            body_hash(0, 1, Some(0), Some([0; 16])),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "hash {index} equals an earlier one");
        }
        assert_eq!(body_hash(3, 2, Some(7), None), body_hash(3, 2, Some(7), None));
    }
}
