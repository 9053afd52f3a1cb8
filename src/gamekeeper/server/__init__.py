"""The coordinator: transport-free logic (`coordinator`, `uploads`, `judging`, `reading`) and its HTTP face (`http`)."""
