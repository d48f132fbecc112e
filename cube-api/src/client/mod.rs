//! The typed HTTP and websocket client.
