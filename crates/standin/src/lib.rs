//! A stand-in for a payment provider: its own exact books in memory, and an HTTP server that speaks the provider's shape.
