"""The compliance console: pages for people, on the same application and roles as the REST interface."""
