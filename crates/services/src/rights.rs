//! What the engine's user may do on the servers: what it needs, and nothing that would lose something. `docs/cluster.md` gives operators
//! the same lines, word for word.

/// On Redis: its own keys and channels, no emptying, no administration.
pub(crate) const REDIS: &str = "~doorbuster:* &doorbuster:* -@all +@read +@write +@pubsub +@connection +@transaction +@scripting +info \
    +time +wait +role +cluster|keyslot +cluster|slots +cluster|shards +cluster|nodes +cluster|myid +cluster|info -flushall -flushdb \
    -swapdb -keys -function|flush -function|delete -function|restore -script|flush -script|kill";

/// On NATS: its own subjects, and of JetStream everything but losing a stream or a message.
pub(crate) const NATS: &str = r#"permissions: {
    publish: { allow: ["log.>", "doorbuster.>", "_INBOX.>", "$JS.API.>", "$JS.ACK.>"],
               deny: ["$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.PURGE.>", "$JS.API.STREAM.MSG.DELETE.>"] }
    subscribe: { allow: ["log.>", "doorbuster.>", "_INBOX.>"] } }"#;

#[cfg(test)]
mod tests {
    const GUIDE: &str = include_str!("../../../docs/cluster.md");

    #[test]
    fn the_operators_guide_gives_the_rights_that_are_tested() {
        let on_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for rights in [super::REDIS, super::NATS] {
            assert!(on_one_line(GUIDE).contains(&on_one_line(rights)), "docs/cluster.md has to say: {rights}");
        }
    }
}
