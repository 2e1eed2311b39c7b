"""The plugins that come with envbridge."""
