import { campaign } from "./lane.ts";

campaign(5);
