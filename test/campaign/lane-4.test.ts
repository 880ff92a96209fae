import { campaign } from "./lane.ts";

campaign(4);
