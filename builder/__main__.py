from builder.build import main

raise SystemExit(main())
