"""What the daemon is made of: the home folder, children, their logs, and when to start them again."""
