"""Records that the law asks for: processing register, agreements; reminders, exports."""
