"""The Slack channel: one message per incident with a bot token, one per transition with an incoming webhook."""
